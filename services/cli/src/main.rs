//! The `airfleet` command.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    airfleet_runtime::tls::install_crypto_provider();
    airfleet_cli::main().await
}
