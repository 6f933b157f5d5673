//! An agent that is killed (-9) at every step ends in the right state after its next start.

use std::{path::Path, time::Duration};

use airfleet_local::AirflowVersion;
use airfleet_proto::common::v1::Role;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use super::fixture::{Fixture, pool};
use crate::{RunningAgent, eventually};

/// Runs an agent in a process of its own until it is about to do its `nth` step since it started,
/// and kills it so long after. Says whether it came so far.
async fn kill_at(settings: &Path, nth: usize, after: Duration) -> bool {
    let mut agent = Command::new(env!("CARGO_BIN_EXE_airfleet-agent"))
        .arg("--config")
        .arg(settings)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(agent.stderr.take().unwrap()).lines();
    let mut other = BufReader::new(agent.stdout.take().unwrap()).lines();
    let mut steps = 0;
    let came_so_far = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let line = tokio::select! {
                Ok(Some(line)) = lines.next_line() => line,
                Ok(Some(line)) = other.next_line() => line,
                else => panic!("the agent ended"),
            };
            steps += usize::from(line.contains("step=Some"));
            if steps == nth {
                return true;
            }
            if line.contains("step=None") {
                return false;
            }
        }
    });
    let came_so_far = came_so_far.await.unwrap_or(false);
    tokio::time::sleep(after).await;
    agent.kill().await.unwrap();
    came_so_far
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_step_it_gets_there() {
    let fixture = Fixture::new(AirflowVersion::V3_3_2).await;
    fixture.add_dags(&[("pay__a", false), ("pay__b", true)]).await;
    let settings = fixture.settings();
    let life = [
        (Role::Staged, 1),
        (Role::Active, 1),
        (Role::Active, 2),
        (Role::Quiesced, 3),
        (Role::Active, 4),
        (Role::Retired, 5),
    ];
    let mut kills = 0;
    for (number, (role, generation)) in life.into_iter().enumerate() {
        let text = format!("# {number}");
        fixture.source("pay", "a.py", &text);
        let mut told = fixture.pay(role, generation);
        told.workload.pools = vec![pool("pay_pool", number as i64 + 1)];
        fixture.tell(&[told]);
        // Each start goes on where the last was killed, so it is always about to do something.
        for after in [0, 2, 10, 40] {
            for nth in 1..=3 {
                kills += usize::from(kill_at(&settings, nth, Duration::from_millis(after)).await);
            }
        }
        let agent = RunningAgent::start(fixture.config());
        fixture.reached("pay", role, generation).await;
        let runs: &[&str] = if role == Role::Active { &["pay__a"] } else { &[] };
        assert_eq!(fixture.running().await, runs, "{role:?}");
        if role == Role::Retired {
            assert_eq!((fixture.pools().await, fixture.delivered("pay/a.py")), (vec![], None));
        } else {
            assert_eq!(fixture.pools().await, [format!("pay_pool {}", number + 1)]);
            if role == Role::Active {
                let is_there = async || fixture.delivered("pay/a.py").filter(|now| *now == text);
                eventually("the files are there", is_there).await;
            }
        }
        agent.stop().await;
    }
    assert!(kills >= life.len(), "only {kills} kills hit a step");
    println!("{kills} kills");
}
