//! Releases from an object store that speaks S3. The store is an emulator of S3 (moto), reached
//! through a proxy that counts what is asked for and can spoil the answers.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use airfleet_delivery::Code;
use airfleet_domain::manifest::Source;
use airfleet_local::ObjectStore;
use object_store::{ObjectStoreExt as _, aws::AmazonS3Builder, path::Path as Key};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::rig::{Files, Rig};

/// What becomes of answers that hold an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// They pass.
    None,
    /// After so many no connection is answered any more.
    Vanish(usize),
    /// After so many each is other garbage, of the right length.
    Garbage(usize),
    /// After so many each ends in the middle.
    Short(usize),
}

/// What was asked for since the last time it was looked at.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    lists: usize,
    gets: Vec<String>,
}

struct Shared {
    upstream: u16,
    fault: Fault,
    asked: Asked,
    spoiled: u8,
}

/// Stands between the agent and the store.
#[derive(Clone)]
struct Proxy {
    url: String,
    shared: Arc<Mutex<Shared>>,
}

impl Proxy {
    async fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let url = format!("http://{}", listener.local_addr().expect("is bound"));
        let fault = Fault::None;
        let shared = Shared { upstream, fault, asked: Asked::default(), spoiled: 0 };
        let proxy = Self { url, shared: Arc::new(Mutex::new(shared)) };
        let serving = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let proxy = serving.clone();
                tokio::spawn(async move { proxy.serve(client).await });
            }
        });
        proxy
    }

    fn set(&self, fault: Fault) {
        self.shared.lock().expect("is whole").fault = fault;
    }

    fn asked(&self) -> Asked {
        let mut asked = std::mem::take(&mut self.shared.lock().expect("is whole").asked);
        asked.gets.sort();
        asked
    }

    /// One request, which has no body, and its answer; then the connection ends.
    async fn serve(&self, mut client: TcpStream) -> Option<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).ok()?;
        let target = head.split(' ').nth(1)?.to_owned();
        let (upstream, fault) = {
            let mut shared = self.shared.lock().expect("is whole");
            if target.contains("list-type=2") {
                shared.asked.lists += 1;
            } else {
                let path = target.split('?').next()?.to_owned();
                shared.asked.gets.push(path);
            }
            let served = shared.asked.gets.len();
            let (from, is_list) = match shared.fault {
                Fault::None => (usize::MAX, false),
                Fault::Vanish(from) => (from, false),
                Fault::Garbage(from) | Fault::Short(from) => (from, target.contains("list-type=2")),
            };
            let spoil = served > from && !is_list;
            shared.spoiled = shared.spoiled.wrapping_add(1);
            (shared.upstream, (shared.fault, spoil, shared.spoiled))
        };
        if matches!(fault, (Fault::Vanish(_), true, _)) {
            return None;
        }
        let mut server = TcpStream::connect(("127.0.0.1", upstream)).await.ok()?;
        let (first, rest) = head.split_once("\r\n")?;
        let request = format!("{first}\r\nConnection: close\r\n{rest}");
        server.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).await.ok()?;
        let body = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        match fault {
            (Fault::Garbage(_), true, salt) => answer[body..].fill(salt),
            (Fault::Short(_), true, _) => answer.truncate(body + (answer.len() - body) / 2),
            _ => {}
        }
        client.write_all(&answer).await.ok()?;
        client.shutdown().await.ok()
    }
}

struct Bucket {
    store: ObjectStore,
    client: object_store::aws::AmazonS3,
    proxy: Proxy,
    rig: Rig,
    source: Source,
}

impl Bucket {
    async fn new() -> Self {
        let store = ObjectStore::start_new("dags").await.expect("starts");
        let proxy = Proxy::start(store.port()).await;
        let mut client = AmazonS3Builder::new().with_bucket_name(store.bucket());
        for (name, value) in ObjectStore::options(&store.base_url()) {
            client = client.with_config(name.parse().expect("is an option"), value);
        }
        let options = ObjectStore::options(&proxy.url);
        let rig = Rig::with(|settings| {
            settings.stores = BTreeMap::from([("s3".to_owned(), options)]);
        });
        let source = Source { uri: "s3://dags/teams/pay".into(), ..Source::default() };
        Self { store, client: client.build().expect("is complete"), proxy, rig, source }
    }

    async fn put(&self, path: &str, content: &str) {
        self.put_at(&format!("teams/pay/{path}"), content).await;
    }

    async fn put_at(&self, key: &str, content: &str) {
        self.client.put(&Key::from(key), content.to_owned().into()).await.expect("is put");
    }

    async fn let_anybody_read(&self) {
        let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*",
            "Action":"s3:GetObject","Resource":"arn:aws:s3:::dags/*"}]}"#;
        let request = format!(
            "PUT /dags?policy HTTP/1.1\r\nHost: localhost\r\nAuthorization: AWS4-HMAC-SHA256 \
             Credential=any/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=any\r\n\
             Connection: close\r\nContent-Length: {}\r\n\r\n{policy}",
            policy.len()
        );
        let mut stream = TcpStream::connect(("127.0.0.1", self.store.port())).await.expect("is up");
        stream.write_all(request.as_bytes()).await.expect("is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("is answered");
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
    }

    async fn fill(&self, count: usize, version: usize) -> Files {
        let mut files = Files::new();
        for number in 0..count {
            let path = format!("team{}/dag{number:04}.py", number % 7);
            let content = format!("import airflow # dag {number}, version {version}");
            self.put(&path, &content).await;
            files.insert(path, content);
        }
        files
    }
}

#[tokio::test]
async fn what_changed_is_fetched_and_nothing_else() {
    // More than a page of a listing.
    const COUNT: usize = 1_100;
    let bucket = Bucket::new().await;
    let mut files = bucket.fill(COUNT, 1).await;
    bucket.put_at("teams/payroll/not_this.py", "import airflow # dag").await;
    let (rig, source) = (&bucket.rig, &bucket.source);

    let first = rig.roller.sync(&rig.namespace, source).await.expect("is delivered");
    assert_eq!((first.switched, first.changes.added), (true, COUNT));
    assert_eq!(rig.seen(), files);
    assert_eq!(bucket.proxy.asked().gets.len(), COUNT, "each file once");

    let again = rig.roller.sync(&rig.namespace, source).await.expect("is unchanged");
    assert_eq!((again.switched, again.fetched_bytes), (false, 0));
    assert_eq!(bucket.proxy.asked(), Asked { lists: 2, gets: vec![] });

    for path in ["team0/dag0007.py", "team3/new.py"] {
        bucket.put(path, "import airflow # dag, anew").await;
        files.insert(path.into(), "import airflow # dag, anew".into());
    }
    bucket.client.delete(&Key::from("teams/pay/team1/dag0001.py")).await.expect("is deleted");
    files.remove("team1/dag0001.py");
    let third = rig.roller.sync(&rig.namespace, source).await.expect("is delivered");
    let changes = third.changes;
    assert_eq!((changes.added, changes.changed, changes.removed), (1, 1, 1));
    assert_eq!(rig.seen(), files);
    let asked = bucket.proxy.asked();
    assert_eq!(asked.gets, ["/dags/teams/pay/team0/dag0007.py", "/dags/teams/pay/team3/new.py"]);
}

/// Google's store has an API like S3's, and it is that one which is asked. Its logins are left out.
#[tokio::test]
async fn what_changed_is_fetched_from_google_as_well() {
    let mut bucket = Bucket::new().await;
    let key = format!(
        r#"{{"gcs_base_url":"{}","disable_oauth":true,"client_email":"","private_key":"",
        "private_key_id":""}}"#,
        bucket.proxy.url
    );
    let options = [("service_account_key", key), ("allow_http", "true".to_owned())];
    let options = options.map(|(name, value)| (name.to_owned(), value));
    bucket.rig = Rig::with(|settings| {
        settings.stores = BTreeMap::from([("gs".to_owned(), options.into())]);
    });
    let source = Source { uri: "gs://dags/teams/pay".into(), ..Source::default() };
    bucket.let_anybody_read().await;
    let mut files = bucket.fill(20, 1).await;
    let rig = &bucket.rig;
    rig.roller.sync(&rig.namespace, &source).await.expect("is delivered");
    assert_eq!(rig.seen(), files);
    assert_eq!(bucket.proxy.asked().gets.len(), 20, "each file once");
    bucket.put("team0/dag0007.py", "import airflow # dag, anew").await;
    files.insert("team0/dag0007.py".into(), "import airflow # dag, anew".into());
    let second = rig.roller.sync(&rig.namespace, &source).await.expect("is delivered");
    assert_eq!((second.changes.changed, second.changes.kept), (1, 19));
    assert_eq!(rig.seen(), files);
    assert_eq!(bucket.proxy.asked().gets, ["/dags/teams%2Fpay%2Fteam0%2Fdag0007%2Epy"]);
}

#[tokio::test]
async fn a_store_that_fails_halfway_leaves_the_running_release() {
    const COUNT: usize = 120;
    let bucket = Bucket::new().await;
    let (rig, source) = (&bucket.rig, &bucket.source);
    let running = bucket.fill(COUNT, 1).await;
    let first = rig.roller.sync(&rig.namespace, source).await.expect("is delivered");
    let next = bucket.fill(COUNT, 2).await;

    for (fault, code) in [
        (Fault::Garbage(10), Code::SourceCorrupt),
        (Fault::Short(10), Code::SourceUnreachable),
        (Fault::Vanish(10), Code::SourceUnreachable),
    ] {
        bucket.proxy.asked();
        bucket.proxy.set(fault);
        let error = rig.roller.sync(&rig.namespace, source).await.expect_err("fails");
        assert_eq!(error.code(), code, "{fault:?}: {error}");
        assert_eq!(rig.seen(), running, "{fault:?}");
        let current = rig.roller.current(&rig.namespace).await.expect("is known");
        assert_eq!(current.as_ref(), Some(&first.release), "{fault:?}");
    }

    bucket.proxy.set(Fault::None);
    bucket.proxy.asked();
    let second = rig.roller.sync(&rig.namespace, source).await.expect("is delivered");
    assert_eq!((second.switched, second.changes.changed), (true, COUNT));
    assert_eq!(rig.seen(), next);
    assert!(bucket.proxy.asked().gets.len() < COUNT, "what was whole is not fetched again");
}

#[tokio::test]
async fn a_store_that_is_gone_is_told_soon_and_costs_nothing() {
    let bucket = Bucket::new().await;
    let (rig, source) = (&bucket.rig, &bucket.source);
    let running = bucket.fill(3, 1).await;
    rig.roller.sync(&rig.namespace, source).await.expect("is delivered");
    bucket.store.kill().await;
    let asking = rig.roller.sync(&rig.namespace, source);
    let answer = tokio::time::timeout(Duration::from_mins(1), asking).await.expect("soon");
    assert_eq!(answer.expect_err("is gone").code(), Code::SourceUnreachable);
    assert_eq!(rig.seen(), running);
    let staging = rig.dags().join(".airfleet/staging/payments/incoming");
    assert!(!fs::exists(staging).expect("can be asked"), "nothing was begun");
}
