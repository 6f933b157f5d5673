//! Generates the code of `airfleet-proto`, and checks that what is checked in is current: see
//! `tests/generated.rs`. A crate of its own, so that it runs while what uses the generated code
//! does not compile yet.
