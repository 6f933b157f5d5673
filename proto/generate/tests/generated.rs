//! Regenerates the code and compares it with what is checked in. `make proto`, which sets
//! `AIRFLEET_PROTO_WRITE=1`, writes it instead.
use std::{fs, path::Path};

use prost::Message as _;

const FILES: [&str; 7] = [
    "airfleet/common/v1/common.proto",
    "airfleet/registry/v1/registry.proto",
    "airfleet/router/v1/router.proto",
    "airfleet/moves/v1/moves.proto",
    "airfleet/dags/v1/dags.proto",
    "airfleet/placement/v1/placement.proto",
    "airfleet/agent/v1/agent.proto",
];

#[test]
fn generated_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it lies in proto/");
    let descriptors = protox::compile(FILES, [root]).expect("the .proto files compile");
    let fresh = tempdir();
    tonic_prost_build::configure()
        .out_dir(&fresh)
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors.clone())
        .expect("code generates");
    fs::write(fresh.join("descriptors.bin"), descriptors.encode_to_vec()).unwrap();

    let checked_in = root.join("src/gen");
    let mut stale = Vec::new();
    for entry in fs::read_dir(&fresh).unwrap() {
        let name = entry.unwrap().file_name();
        let new = fs::read(fresh.join(&name)).unwrap();
        if std::env::var_os("AIRFLEET_PROTO_WRITE").is_some() {
            fs::write(checked_in.join(&name), new).unwrap();
        } else if fs::read(checked_in.join(&name)).ok() != Some(new) {
            stale.push(name);
        }
    }
    fs::remove_dir_all(&fresh).unwrap();
    assert!(stale.is_empty(), "{stale:?} differ from the .proto files: run `make proto`");
}

fn tempdir() -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("airfleet-proto-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    dir
}
