//! Changes to DAGs, between an agent and the router.

use airfleet_domain::dags::{Ask, Change, Clear, Done, Failure, Outcome, Trigger, Trouble};

use super::{micros, timestamp};
use crate::agent::v1::{self as wire, dag_change, dag_change_result};

/// A change as an agent is asked for it. The number comes back in the answer; nobody waits for that
/// longer than `patience_ms`.
pub fn change(ask: Ask, number: i64, patience_ms: i64) -> wire::DagChange {
    let change = match ask.change {
        Change::Trigger(Trigger { run_id, conf_json, logical_date_us, note }) => {
            let logical_date = logical_date_us.map(timestamp);
            dag_change::Change::Trigger(wire::DagTrigger { run_id, conf_json, logical_date, note })
        }
        Change::Clear(Clear { run_id, only_failed, task_ids }) => {
            dag_change::Change::Clear(wire::DagClear { run_id, only_failed, task_ids })
        }
        Change::Pause(paused) => dag_change::Change::Paused(paused),
    };
    wire::DagChange {
        number,
        namespace: ask.namespace.to_string(),
        generation: ask.generation.0,
        dag_id: ask.dag_id,
        patience_ms,
        change: Some(change),
    }
}

/// What a router asks for; none where this version has no word for it.
pub fn ask(wire: wire::DagChange) -> Option<Ask> {
    let change = match wire.change? {
        dag_change::Change::Trigger(trigger) => Change::Trigger(Trigger {
            run_id: trigger.run_id,
            conf_json: trigger.conf_json,
            logical_date_us: trigger.logical_date.as_ref().map(micros),
            note: trigger.note,
        }),
        dag_change::Change::Clear(wire::DagClear { run_id, only_failed, task_ids }) => {
            Change::Clear(Clear { run_id, only_failed, task_ids })
        }
        dag_change::Change::Paused(paused) => Change::Pause(paused),
    };
    Some(Ask {
        namespace: wire.namespace.parse().ok()?,
        generation: airfleet_domain::ids::Generation(wire.generation),
        dag_id: wire.dag_id,
        change,
    })
}

/// What came of change `number`.
pub fn result(number: i64, outcome: Outcome) -> wire::DagChangeResult {
    let result = match outcome {
        Ok(Done { run_state, existed, cleared }) => {
            dag_change_result::Result::Done(wire::DagChangeDone { run_state, existed, cleared })
        }
        Err(Failure { trouble, message }) => {
            let trouble = match trouble {
                Trouble::NotActive => wire::DagChangeTrouble::NotActive,
                Trouble::Busy => wire::DagChangeTrouble::Busy,
                Trouble::Away => wire::DagChangeTrouble::Away,
                Trouble::NotSetUp => wire::DagChangeTrouble::NotSetUp,
                Trouble::NotFound => wire::DagChangeTrouble::NotFound,
                Trouble::Refused => wire::DagChangeTrouble::Refused,
                Trouble::InDoubt => wire::DagChangeTrouble::InDoubt,
            };
            let failure = wire::DagChangeFailure { trouble: trouble.into(), message };
            dag_change_result::Result::Failed(failure)
        }
    };
    wire::DagChangeResult { number, result: Some(result) }
}

/// What an agent says came of a change. What this version has no word for is in doubt.
pub fn outcome(wire: wire::DagChangeResult) -> Outcome {
    let failure = match wire.result {
        Some(dag_change_result::Result::Done(done)) => {
            let wire::DagChangeDone { run_state, existed, cleared } = done;
            return Ok(Done { run_state, existed, cleared });
        }
        Some(dag_change_result::Result::Failed(failure)) => failure,
        None => wire::DagChangeFailure::default(),
    };
    let trouble = match failure.trouble() {
        wire::DagChangeTrouble::NotActive => Trouble::NotActive,
        wire::DagChangeTrouble::Busy => Trouble::Busy,
        wire::DagChangeTrouble::Away => Trouble::Away,
        wire::DagChangeTrouble::NotSetUp => Trouble::NotSetUp,
        wire::DagChangeTrouble::NotFound => Trouble::NotFound,
        wire::DagChangeTrouble::Refused => Trouble::Refused,
        wire::DagChangeTrouble::InDoubt | wire::DagChangeTrouble::Unspecified => Trouble::InDoubt,
    };
    Err(Failure { trouble, message: failure.message })
}

#[cfg(test)]
mod tests {
    use airfleet_domain::ids::Generation;

    use super::*;

    #[test]
    fn what_is_asked_and_answered_comes_as_it_was() {
        let trigger = Trigger {
            run_id: "r".into(),
            conf_json: r#"{"a": 1}"#.into(),
            logical_date_us: Some(-1_500_001),
            note: "why".into(),
        };
        let clear =
            Clear { run_id: "r".into(), only_failed: true, task_ids: vec!["a".into(), "b".into()] };
        for asked in [
            Change::Trigger(trigger),
            Change::Trigger(Trigger::default()),
            Change::Clear(clear),
            Change::Pause(true),
            Change::Pause(false),
        ] {
            let asked = Ask {
                namespace: "pay".parse().unwrap(),
                generation: Generation(7),
                dag_id: "pay.daily".into(),
                change: asked,
            };
            assert_eq!(ask(change(asked.clone(), 3, 5)), Some(asked));
        }
        let done = Done { run_state: "queued".into(), existed: true, cleared: 2 };
        assert_eq!(outcome(result(3, Ok(done.clone()))), Ok(done));
        for trouble in [
            Trouble::NotActive,
            Trouble::Busy,
            Trouble::Away,
            Trouble::NotSetUp,
            Trouble::NotFound,
            Trouble::Refused,
            Trouble::InDoubt,
        ] {
            let failure = Failure::new(trouble, "why");
            assert_eq!(outcome(result(3, Err(failure.clone()))), Err(failure));
        }
    }

    #[test]
    fn what_is_not_understood_is_not_done_and_in_doubt() {
        assert_eq!(ask(wire::DagChange::default()), None);
        let unknown = wire::DagChangeResult::default();
        assert_eq!(outcome(unknown).unwrap_err().trouble, Trouble::InDoubt);
    }
}
