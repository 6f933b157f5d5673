//! All pages of a list.

use crate::error::{Error, Result};

/// Entries asked for at once: the most that the services answer with.
pub const PAGE: i32 = 1000;
/// More pages than any fleet has; a service that goes on past it goes in circles.
const PAGES_MAX: usize = 100_000;

/// Reads pages until the last. `page` gets a token, empty at first, and answers the entries and
/// the token of the next page, empty on the last.
pub async fn all<T>(
    mut page: impl AsyncFnMut(String) -> Result<(Vec<T>, String)>,
) -> Result<Vec<T>> {
    let mut entries = Vec::new();
    let mut token = String::new();
    for _ in 0..PAGES_MAX {
        let (more, next) = page(token).await?;
        entries.extend(more);
        if next.is_empty() {
            return Ok(entries);
        }
        token = next;
    }
    Err(Error::new("the list does not end; is the service as new as this command?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pages_are_read_to_the_last() {
        let entries = all(async |token: String| {
            let start: usize = token.parse().unwrap_or(0);
            let next = if start == 4 { String::new() } else { (start + 2).to_string() };
            Ok((vec![start, start + 1], next))
        });
        assert_eq!(entries.await.unwrap(), [0, 1, 2, 3, 4, 5]);
    }

    #[tokio::test]
    async fn a_failure_ends_it() {
        let result = all(async |_| Err::<(Vec<()>, String), _>(Error::new("no"))).await;
        assert_eq!(result, Err(Error::new("no")));
    }
}
