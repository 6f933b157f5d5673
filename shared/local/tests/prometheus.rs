//! A private Prometheus server, for real.

use std::time::{Duration, Instant};

use airfleet_local::Prometheus;

#[tokio::test]
async fn scrapes_what_it_is_told_to_and_answers_queries() {
    // It scrapes itself, which it can only once its port is known: by a file
    // that it watches.
    let folder = airfleet_local::Sandbox::create("scrape").await.unwrap();
    let targets = folder.folder().join("targets.json");
    let prometheus = Prometheus::start_in(
        &folder,
        &format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: self\n  \
             file_sd_configs: [{{files: [{}], refresh_interval: 1s}}]\n",
            targets.display()
        ),
    )
    .await
    .unwrap();
    let address = prometheus.base_url().replace("http://", "");
    std::fs::write(&targets, format!(r#"[{{"targets": ["{address}"]}}]"#)).unwrap();

    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/api/v1/query?query=up", prometheus.base_url());
    let start = Instant::now();
    loop {
        let answer: serde_json::Value =
            client.get(&url).send().await.unwrap().json().await.unwrap();
        if answer["data"]["result"][0]["value"][1] == "1" {
            break;
        }
        assert!(start.elapsed() < Duration::from_mins(1), "{answer}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    prometheus.stop().await;
    assert!(client.get(&url).send().await.is_err());
    prometheus.start().await.unwrap();
    assert!(prometheus.is_running().await);
}

#[tokio::test]
async fn a_wrong_configuration_is_told_with_the_servers_own_words() {
    let error =
        Prometheus::start_new("scrape_configs: [{nonsense: 1}]").await.unwrap_err().to_string();
    assert!(error.contains("prometheus ended with"), "{error}");
    assert!(error.contains("nonsense"), "{error}");
}
