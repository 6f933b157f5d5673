//! Many dag_ids in a call, at a million namespaces.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use airfleet_integration_tests::bench::{
    load::{connect, dag_id},
    report::{Figure, Goal, Report},
};
use airfleet_proto::router::v1::{BatchResolveRequest, router_service_client::RouterServiceClient};
use anyhow::{Result, ensure};
use tonic::transport::Channel;

use crate::{
    progress,
    rig::{MILLION, Rig, median},
};

/// dag_ids in a call: as many as it may have.
const BATCH: u64 = 10_000;
/// DAGs of a namespace that are asked for together, as when a list of DAGs is put into order.
const TOGETHER: u64 = 10;
/// Requests that are made up front, so that making them is not measured.
const REQUESTS: u64 = 16;
const IN_FLIGHT: usize = 8;
const ROUNDS: usize = 5;
const SPAN: Duration = Duration::from_secs(2);

pub(crate) async fn run(rig: &Rig, report: &mut Report) -> Result<()> {
    let router = rig.serving(MILLION).await?;
    let clients = connect(&router.url()).await?;
    let goal = Goal::AtLeast(1_000_000.0);
    for (name, together, goal) in [
        ("batch.ten_dags_of_each_namespace", TOGETHER, goal),
        ("batch.one_dag_of_each_namespace", 1, Goal::None),
    ] {
        let requests = Arc::new(requests(together));
        answers_are_right(&mut clients[0].clone(), &requests).await?;
        let mut rounds = Vec::new();
        for number in 0..=ROUNDS {
            let reached = saturate(&clients, &requests).await?;
            // The first warms both sides up.
            if number > 0 {
                progress(&format!("round {number}: {reached:.0} dag_ids a second"));
                rounds.push(reached);
            }
        }
        report.add(Figure::alone(name, median(rounds), "dag_ids/s", goal))?;
    }
    Ok(())
}

fn requests(together: u64) -> Vec<BatchResolveRequest> {
    let of = |request: u64| {
        let dag_ids = (0..BATCH).map(|n| {
            let namespace = (request * BATCH + n) / together;
            format!("{}_{}", dag_id(namespace, MILLION), n % together)
        });
        BatchResolveRequest { dag_ids: dag_ids.collect() }
    };
    (0..REQUESTS).map(of).collect()
}

async fn answers_are_right(
    client: &mut RouterServiceClient<Channel>,
    requests: &[BatchResolveRequest],
) -> Result<()> {
    let asked = &requests[0];
    let answer = client.batch_resolve(asked.clone()).await?.into_inner();
    ensure!(answer.route_numbers.len() == asked.dag_ids.len(), "an answer for each dag_id");
    for (number, dag_id) in answer.route_numbers.iter().zip(&asked.dag_ids) {
        let route = (*number as usize).checked_sub(1).and_then(|at| answer.routes.get(at));
        let namespace = route.map_or("", |route| &route.namespace);
        ensure!(
            dag_id.strip_prefix(namespace).is_some_and(|rest| rest.starts_with('.')),
            "{dag_id} was resolved to {namespace:?}"
        );
    }
    Ok(())
}

/// dag_ids a second that some callers reach, each sending its next call upon an answer.
async fn saturate(
    clients: &[RouterServiceClient<Channel>],
    requests: &Arc<Vec<BatchResolveRequest>>,
) -> Result<f64> {
    let begun = Instant::now();
    let callers = (0..IN_FLIGHT).map(|caller| {
        let client = clients[caller % clients.len()].clone();
        let mut client = client.max_decoding_message_size(16 << 20);
        let requests = Arc::clone(requests);
        tokio::spawn(async move {
            let (mut resolved, mut next) = (0, caller);
            while begun.elapsed() < SPAN {
                let request = requests[next % requests.len()].clone();
                resolved += client.batch_resolve(request).await?.into_inner().route_numbers.len();
                next += 1;
            }
            anyhow::Ok(resolved)
        })
    });
    let mut resolved = 0;
    for caller in callers.collect::<Vec<_>>() {
        resolved += caller.await??;
    }
    Ok(resolved as f64 / begun.elapsed().as_secs_f64())
}
