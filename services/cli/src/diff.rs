//! `airfleet diff`: what apply would change, as a unified diff of YAML.

use std::io;

use airfleet_domain::manifest::to_yaml;
use similar::TextDiff;

use crate::{
    apply::{self, Applied, Outcome},
    args::Files,
    error::{Exit, Result},
    files,
    screen::{Paint, Tone},
    session::Session,
};

/// Arguments of `diff`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  airfleet diff -f fleet/
  airfleet diff -f fleet/ || airfleet apply -f fleet/

The registry compares, and checks the entries as apply does.

Exit codes: 0 no difference, 1 failed, 2 a difference was found.")]
pub struct Args {
    #[command(flatten)]
    files: Files,
}

/// Does it.
pub async fn run(session: &mut Session<'_>, args: Args) -> Result<Exit> {
    let manifest = files::read(&args.files.filename, args.files.recursive, io::stdin())?;
    let mut exit = Exit::Ok;
    apply::send(session, &manifest, true, |session, applied| {
        for one in applied.iter().filter(|one| one.outcome != Outcome::Unchanged) {
            exit = Exit::Negative;
            let item = &manifest.items[one.item];
            let text = difference(one, &item.id(), &manifest.place(item), session.screen.paint());
            session.screen.print(&text)?;
        }
        session.screen.flush()
    })
    .await?;
    Ok(exit)
}

/// The difference of one entry; without a before it is all new.
fn difference(applied: &Applied, id: &str, place: &str, paint: Paint) -> String {
    let before = applied.before.as_ref().map(to_yaml).unwrap_or_default();
    unified(
        &before,
        &to_yaml(&applied.after),
        &format!("registry {id}"),
        &format!("{place} {id}"),
        paint,
    )
}

/// A unified diff with three lines of context, as `diff -u` writes it.
fn unified(before: &str, after: &str, from: &str, to: &str, paint: Paint) -> String {
    let diff = TextDiff::from_lines(before, after);
    let from = if before.is_empty() { "/dev/null" } else { from };
    let text = diff.unified_diff().context_radius(3).header(from, to).to_string();
    let mut painted = String::with_capacity(text.len());
    for line in text.lines() {
        let tone = match line.as_bytes() {
            [b'-', b'-', b'-', ..] | [b'+', b'+', b'+', ..] => Tone::Strong,
            [b'-', ..] => Tone::Bad,
            [b'+', ..] => Tone::Good,
            [b'@', ..] => Tone::Dim,
            _ => Tone::Plain,
        };
        painted.push_str(&paint.tone(tone, line));
        painted.push('\n');
    }
    painted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_shown_with_its_surroundings() {
        let before = "kind: Namespace\nspec:\n  owners:\n  - team\n";
        let after = "kind: Namespace\nspec:\n  owners:\n  - other\n";
        assert_eq!(
            unified(
                before,
                after,
                "registry namespace/pay",
                "pay.yaml:1 namespace/pay",
                Paint::PLAIN
            ),
            "\
--- registry namespace/pay
+++ pay.yaml:1 namespace/pay
@@ -1,4 +1,4 @@
 kind: Namespace
 spec:
   owners:
-  - team
+  - other
"
        );
    }

    #[test]
    fn what_is_new_has_no_before() {
        let text =
            unified("", "kind: Shard\n", "registry shard/a", "a.yaml:1 shard/a", Paint::COLORED);
        assert!(text.starts_with("\u{1b}[1m--- /dev/null\u{1b}[0m\n"), "{text:?}");
        assert!(text.contains("\u{1b}[32m+kind: Shard\u{1b}[0m\n"), "{text:?}");
    }
}
