//! Bad input to the real services: each gets a clear error, and a client that behaves notices
//! nothing of it.

use std::{fmt::Write as _, fs, time::Duration};

use airfleet_integration_tests::{
    eventually,
    manifest::{namespace, shard_entry},
    process::{Service, registry, router, sqlite},
};
use airfleet_local::Sandbox;
use airfleet_proto::{
    registry::v1::{ApplyManifestRequest, CreateNamespaceRequest, ManifestEntry, Namespace},
    router::v1::{BatchResolveRequest, GetRouterStatusRequest, ResolveRequest},
};
use anyhow::{Context as _, Result, ensure};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

async fn fleet(sandbox: &Sandbox) -> Result<(Service, Service)> {
    let mut registry = registry(sandbox, &sqlite(sandbox, "registry.db"))?;
    registry.start().await?;
    let mut router = router(sandbox, "router", &sqlite(sandbox, "router.db"), &registry)?;
    router.start().await?;
    let request =
        ApplyManifestRequest { entries: vec![shard_entry("shard-a")], ..Default::default() };
    registry.registry().apply_manifest(request).await?;
    Ok((registry, router))
}

fn violations(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|b| b.field_violations.clone()).unwrap_or_default();
    violations.into_iter().map(|v| v.field).collect()
}

fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    details.error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_messages_are_refused_with_every_field_and_change_nothing() -> Result<()> {
    let sandbox = Sandbox::create("hostile").await?;
    let (registry, router) = fleet(&sandbox).await?;
    let create = async |namespace: Namespace| {
        let request = CreateNamespaceRequest { namespace: Some(namespace), ..Default::default() };
        registry.registry().create_namespace(request).await
    };

    // Everything that is wrong, at once.
    let mut bad = namespace("payments");
    bad.name = "../../etc/passwd".into();
    bad.prefixes = vec!["ok.".into(), "'; DROP TABLE namespaces; --".into()];
    bad.owners.clear();
    let status = create(bad).await.unwrap_err();
    ensure!(status.code() == Code::InvalidArgument, "{status:?}");
    let fields = violations(&status);
    for field in ["name", "prefixes[1]", "owners"] {
        ensure!(fields.iter().any(|found| found.ends_with(field)), "{field} is not in {fields:?}");
    }

    // Overlap names the other namespace.
    create(namespace("payments")).await?;
    let mut thief = namespace("thief");
    thief.prefixes = vec!["payments.secret.".into()];
    let status = create(thief).await.unwrap_err();
    ensure!(status.message().contains("payments") || format!("{status:?}").contains("payments"));
    ensure!(!reason(&status).is_empty(), "no reason: {status:?}");

    // Larger than a message may be, larger than a list may be.
    let mut large = namespace("large");
    large.description = "x".repeat(64 * 1024 * 1024);
    let status = create(large).await.unwrap_err();
    ensure!(
        matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted),
        "an oversized message was answered with {status:?}"
    );
    let request = ApplyManifestRequest {
        entries: vec![ManifestEntry::default(); 1001],
        ..Default::default()
    };
    let status = registry.registry().apply_manifest(request).await.unwrap_err();
    ensure!(status.code() == Code::InvalidArgument, "{status:?}");
    let dag_ids = vec!["payments.daily".to_owned(); 10_001];
    let status = router.router().batch_resolve(BatchResolveRequest { dag_ids }).await.unwrap_err();
    ensure!(status.code() == Code::InvalidArgument, "{status:?}");
    let status = router.router().resolve(ResolveRequest { target: None }).await.unwrap_err();
    ensure!(status.code() == Code::InvalidArgument, "{status:?}");

    let list = registry.registry().list_namespaces(Request::new(Default::default())).await?;
    let names: Vec<String> = list.into_inner().namespaces.into_iter().map(|n| n.name).collect();
    ensure!(names == ["payments"], "{names:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_half_open_connections_cost_nobody_else_anything() -> Result<()> {
    let sandbox = Sandbox::create("half-open").await?;
    let (_registry, router) = fleet(&sandbox).await?;
    let address = router.url().trim_start_matches("http://").to_owned();
    let mut silent = Vec::new();
    for _ in 0..1000 {
        silent.push(tokio::net::TcpStream::connect(&address).await?);
    }
    for _ in 0..20 {
        // A new connection each time, among the silent ones.
        let answer = router.router().get_router_status(GetRouterStatusRequest {}).await;
        answer.context("an honest client was kept out")?;
    }
    drop(silent);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_decide_who_may_do_what() -> Result<()> {
    const TOKENS: [(&str, &str, &str); 3] = [
        ("ops", "operator", "4b0c5cb9a1c44f6bb8d6d7dc8c2b8a3e"),
        ("payments-ci", "tenant", "9f4e3c7ad2b84c5e8f6a1b2c3d4e5f60"),
        ("dashboard", "viewer", "0a1b2c3d4e5f60718293a4b5c6d7e8f9"),
    ];
    let sandbox = Sandbox::create("tokens").await?;
    let file = sandbox.folder().join("tokens.toml");
    let mut text = String::new();
    for (name, role, token) in TOKENS {
        let hash = sha256(token).await?;
        writeln!(text, "[[token]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{hash}\"")?;
        if role == "tenant" {
            text += "namespaces = [\"payments\", \"payments-*\"]\n";
        }
    }
    fs::write(&file, text)?;
    let mut registry = registry(&sandbox, &sqlite(&sandbox, "registry.db"))?
        .with("server.tokens_file", file.display());
    registry.start().await?;
    let create = async |token: Option<&str>, name: &str| {
        let request =
            CreateNamespaceRequest { namespace: Some(namespace(name)), ..Default::default() };
        let mut request = Request::new(request);
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().expect("tokens are ASCII");
            request.metadata_mut().insert("authorization", value);
        }
        let answer = registry.registry().create_namespace(request).await;
        answer.map(drop).map_err(|status| (status.code(), reason(&status)))
    };
    let [ops, tenant, viewer] = TOKENS.map(|(_, _, token)| token);
    for (token, name, expected) in [
        (None, "search", Some(Code::Unauthenticated)),
        (Some("wrong"), "search", Some(Code::Unauthenticated)),
        (Some(viewer), "search", Some(Code::PermissionDenied)),
        (Some(tenant), "search", Some(Code::PermissionDenied)),
        (Some(tenant), "payments", None),
        (Some(tenant), "payments-eu", None),
        (Some(ops), "search", None),
    ] {
        let outcome = create(token, name).await;
        let code = outcome.as_ref().err().map(|(code, _)| *code);
        ensure!(code == expected, "{name} with {token:?}: {outcome:?}");
        if let Err((_, reason)) = outcome {
            ensure!(!reason.is_empty(), "{name} with {token:?} was refused without a reason");
        }
    }
    // A token that is taken out of the file is refused soon after.
    fs::write(&file, "token = []\n")?;
    eventually(Duration::from_secs(20), async || {
        let outcome = create(Some(ops), "reports").await;
        ensure!(matches!(outcome, Err((Code::Unauthenticated, _))), "{outcome:?}");
        Ok(())
    })
    .await
}

async fn sha256(text: &str) -> Result<String> {
    use tokio::io::AsyncWriteExt as _;
    let mut child = tokio::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    child.stdin.take().context("stdin is piped")?.write_all(text.as_bytes()).await?;
    let output = child.wait_with_output().await?;
    Ok(String::from_utf8(output.stdout)?.split(' ').next().unwrap_or_default().to_owned())
}
