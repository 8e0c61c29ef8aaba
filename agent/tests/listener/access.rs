//! Users, certificates and filters in front of real sockets: who gets in, what each may publish,
//! what the others are told, and what a change of the files does.

use super::pki::{Pair, Pki};
use super::*;
use rumqttc::tokio_rustls::TlsConnector;
use rumqttc::tokio_rustls::client::TlsStream;
use rumqttc::tokio_rustls::rustls::pki_types::ServerName;
use rumqttc::tokio_rustls::rustls::{ClientConfig, version};
use rumqttc::{Transport, v5};
use std::path::PathBuf;
use tributary_agent::source::access::acl::Grants;
use tributary_agent::source::access::password::{Hashed, Password};
use tributary_agent::source::access::store::Editing;
use tributary_agent::source::access::users::User;
use tributary_agent::source::tls::TlsConfig;

pub(super) const SECRET: &str = "correct horse";

fn put(path: &Path, name: &str, filter: &str) {
    put_who(
        path,
        name,
        Grants::parse(&[filter.to_owned()], false).unwrap(),
    );
}

/// A user who may do this.
pub(super) fn put_who(path: &Path, name: &str, grants: Grants) {
    let mut editing = Editing::begin(path).unwrap();
    let password = Password::new(SECRET.as_bytes().to_vec());
    let user = User {
        password: Some(Hashed::of(&password).unwrap()),
        grants: Arc::new(grants),
    };
    editing.users.insert(name, user).unwrap();
    editing.save().unwrap();
}

fn remove(path: &Path, name: &str) {
    let mut editing = Editing::begin(path).unwrap();
    assert!(editing.users.remove(name));
    editing.save().unwrap();
}

pub(super) fn config(tls: Option<TlsConfig>, users: Option<PathBuf>) -> ListenerConfig {
    ListenerConfig {
        tls,
        users,
        ..ListenerConfig::open("127.0.0.1:0".parse().unwrap(), 1_000_000)
    }
}

/// A listener with users `pump` and `valve`, each under `plant/<its name>`.
async fn with_users(pki: &Pki) -> Server {
    let users = pki.path("users.toml");
    put(&users, "pump", "plant/%u/#");
    put(&users, "valve", "plant/%u/#");
    let (writer, held) = gate();
    drop(held); // everything is durable at once
    serve_as(
        writer,
        &config(Some(pki.tls()), Some(users)),
        Sessions::none(),
    )
    .await
}

/// A CONNECT that says who it is.
pub(super) fn connect(level: u8, id: &str, user: Option<&str>, password: Option<&str>) -> Vec<u8> {
    let flags = 2 | user.map_or(0, |_| 0x80) | password.map_or(0, |_| 0x40);
    let mut body = [&[0, 4], b"MQTT".as_slice(), &[level, flags, 0, 60]].concat();
    body.extend((level == 5).then_some(0));
    for text in [Some(id), user, password].into_iter().flatten() {
        body.extend([0, text.len() as u8]);
        body.extend(text.as_bytes());
    }
    [&[0x10, body.len() as u8], body.as_slice()].concat()
}

/// The return code of CONNACK.
async fn code(server: &Server, connect: &[u8]) -> u8 {
    let mut raw = Raw::open(server).await;
    raw.send(connect).await;
    let answer = raw.packet().await.unwrap();
    assert_eq!(answer[0], 0x20);
    if answer[3] != 0 {
        assert_eq!(raw.packet().await, None, "refused, and closed");
    }
    answer[3]
}

/// An MQTT 5 PUBLISH at QoS 1.
fn publish_v5(id: u16, topic: &str) -> Vec<u8> {
    let mut body = vec![0, topic.len() as u8];
    body.extend(topic.as_bytes());
    body.extend(id.to_be_bytes());
    body.extend(b"\0x");
    [&[0x32, body.len() as u8], body.as_slice()].concat()
}

type Tls = TlsStream<TcpStream>;

async fn tls(server: &Server, config: Arc<ClientConfig>) -> std::io::Result<Tls> {
    let socket = TcpStream::connect(server.tls.unwrap()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(config).connect(name, socket).await
}

/// One packet over TLS.
async fn packet(stream: &mut Tls) -> std::io::Result<Vec<u8>> {
    let mut packet = vec![0; 2];
    stream.read_exact(&mut packet).await?;
    let mut body = vec![0; usize::from(packet[1])];
    stream.read_exact(&mut body).await?;
    packet.extend(body);
    Ok(packet)
}

/// Over TLS as far as CONNACK; its return code, or why there was none.
async fn tls_code(
    server: &Server,
    config: Arc<ClientConfig>,
    connect: &[u8],
) -> Result<(Tls, u8), String> {
    let arrive = async {
        let mut stream = tls(server, config).await?;
        stream.write_all(connect).await?;
        stream.flush().await?;
        let answer = packet(&mut stream).await?;
        Ok((stream, answer[3]))
    };
    arrive
        .await
        .map_err(|error: std::io::Error| error.to_string())
}

#[tokio::test]
async fn users_publish_with_their_password_over_tls() {
    let pki = Pki::new();
    let server = with_users(&pki).await;
    let port = server.tls.unwrap().port();
    let transport =
        || Transport::tls_with_config(rumqttc::TlsConfiguration::Rustls(pki.client(None)));

    let mut options = rumqttc::MqttOptions::new("v4", "localhost", port);
    options
        .set_transport(transport())
        .set_credentials("pump", SECRET);
    let (client, mut events) = rumqttc::AsyncClient::new(options, 4);
    let qos = rumqttc::QoS::AtLeastOnce;
    client
        .publish("plant/pump/t", qos, false, "1")
        .await
        .unwrap();
    while !matches!(
        events.poll().await.unwrap(),
        rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_))
    ) {}

    let mut options = v5::MqttOptions::new("v5", "localhost", port);
    options
        .set_transport(transport())
        .set_credentials("valve", SECRET);
    let (client, mut events) = v5::AsyncClient::new(options, 4);
    let qos = v5::mqttbytes::QoS::ExactlyOnce;
    client
        .publish("plant/valve/t", qos, false, "2")
        .await
        .unwrap();
    while !matches!(
        events.poll().await.unwrap(),
        v5::Event::Incoming(v5::Incoming::PubComp(_))
    ) {}
    let frames = server.end().await;
    assert_eq!(publications(&frames), ["plant/pump/t", "plant/valve/t"]);
}

/// The topics of what was taken.
fn publications(frames: &[CommittedFrame]) -> Vec<String> {
    let records = frames.iter().flat_map(CommittedFrame::records);
    let topics = records.filter_map(|(_, kind, bytes)| match Record::parse(kind, bytes) {
        Ok(Record::Message(message)) => Some(message.topic.to_owned()),
        _ => None,
    });
    topics.collect()
}

#[tokio::test]
async fn who_is_not_let_in_is_told_why() {
    let pki = Pki::new();
    let server = with_users(&pki).await;
    for (user, password, v4, v5) in [
        (Some("pump"), Some(SECRET), 0, 0),
        (Some("pump"), Some("wrong"), 4, 0x86),
        (Some("nobody"), Some(SECRET), 4, 0x86),
        (Some("pump"), None, 4, 0x86),
        (None, None, 5, 0x87),
    ] {
        for (level, expected) in [(4, v4), (5, v5)] {
            let connect = connect(level, "a", user, password);
            assert_eq!(
                code(&server, &connect).await,
                expected,
                "{user:?} {password:?}"
            );
        }
    }
    let client = pki.client(None);
    let wrong = connect(5, "a", Some("pump"), Some("wrong"));
    let (mut stream, code) = tls_code(&server, client, &wrong).await.unwrap();
    assert_eq!(code, 0x86, "over TLS, too");
    assert_eq!(
        stream.read(&mut [0; 8]).await.unwrap(),
        0,
        "closed with a farewell"
    );
    server.end().await;
}

#[tokio::test]
async fn a_user_publishes_within_its_filters_and_3_1_1_is_acknowledged_without_effect() {
    let pki = Pki::new();
    let server = with_users(&pki).await;
    let mut v5 = Raw::open(&server).await;
    v5.send(&connect(5, "a", Some("pump"), Some(SECRET))).await;
    assert_eq!(v5.packet().await.unwrap()[3], 0);
    for (id, topic, code) in [
        (1, "plant/pump/t", None),
        (2, "plant/valve/t", Some(0x87)),
        (3, "plant", Some(0x87)),
        (4, "tributary/x", Some(0x87)),
        (5, "plant/pump", None),
    ] {
        v5.send(&publish_v5(id, topic)).await;
        let answer = v5.packet().await.unwrap();
        assert_eq!((answer[0], answer[3]), (0x40, id as u8));
        assert_eq!(answer.get(4).copied(), code, "{topic}");
    }
    let mut v4 = Raw::open(&server).await;
    v4.send(&connect(4, "b", Some("valve"), Some(SECRET))).await;
    assert_eq!(v4.packet().await.unwrap()[3], 0);
    for (id, topic) in [(1, "plant/pump/t"), (2, "plant/valve/t")] {
        v4.publish(1, id, topic, b"x").await;
        assert_eq!(v4.packet().await.unwrap(), [0x40, 2, 0, id as u8]);
    }
    // QoS 2 is refused at once on MQTT 5: there is nothing to release.
    let mut qos_2 = publish_v5(6, "plant/valve/t");
    qos_2[0] = 0x34;
    v5.send(&qos_2).await;
    assert_eq!(v5.packet().await.unwrap()[..5], [0x50, 4, 0, 6, 0x87]);
    drop((v4, v5));
    let frames = server.end().await;
    assert_eq!(
        publications(&frames),
        ["plant/pump/t", "plant/pump", "plant/valve/t"]
    );
}

#[tokio::test]
async fn a_will_beyond_the_filters_is_refused_with_its_client() {
    let pki = Pki::new();
    let server = with_users(&pki).await;
    for (topic, expected) in [("plant/pump/x", 0), ("plant/other", 0x87)] {
        let mut body = [&[0, 4], b"MQTT".as_slice(), &[5, 0xc6, 0, 60, 0]].concat();
        for text in ["a", "", topic, "gone", "pump", SECRET] {
            // Behind the identifier stand the will's properties: none.
            match text {
                "" => body.push(0),
                text => {
                    body.extend([0, text.len() as u8]);
                    body.extend(text.as_bytes());
                }
            }
        }
        let connect = [&[0x10, body.len() as u8], body.as_slice()].concat();
        assert_eq!(code(&server, &connect).await, expected, "{topic}");
    }
    let frames = server.end().await;
    assert_eq!(
        publications(&frames),
        ["plant/pump/x"],
        "the lost one's will"
    );
}

#[tokio::test]
async fn a_name_belongs_to_its_user() {
    let pki = Pki::new();
    let server = with_users(&pki).await;
    let session = |user| {
        let mut connect = connect(5, "same", user, user.map(|_| SECRET));
        // Not a clean start, and a session of a minute.
        connect[9] &= !2;
        connect[12] = 5;
        connect.splice(13..13, [0x11, 0, 0, 0, 60]);
        connect[1] += 5;
        connect
    };
    let mut pump = Raw::open(&server).await;
    pump.send(&session(Some("pump"))).await;
    assert_eq!(pump.packet().await.unwrap()[2..4], [0, 0]);
    // Neither another user nor somebody without a password ends it, or gets at its session.
    let mut valve = Raw::open(&server).await;
    valve.send(&session(Some("valve"))).await;
    assert_eq!(
        valve.packet().await.unwrap()[2..4],
        [0, 0],
        "a session of its own"
    );
    assert_eq!(code(&server, &session(None)).await, 0x87);
    pump.send(&[0xc0, 0]).await;
    assert_eq!(pump.packet().await.unwrap(), [0xd0, 0]);
    drop(pump);
    let mut pump = Raw::open(&server).await;
    pump.send(&session(Some("pump"))).await;
    assert_eq!(
        pump.packet().await.unwrap()[2..4],
        [1, 0],
        "its session goes on"
    );
    drop((pump, valve));
    server.end().await;
}

#[tokio::test]
async fn what_comes_behind_connect_waits_until_it_is_known_who_came() {
    let pki = Pki::new();
    let server = with_users(&pki).await;
    let publish = [
        publish_v5(7, "plant/pump/t"),
        publish_v5(8, "plant/valve/t"),
    ]
    .concat();
    let mut good = Raw::open(&server).await;
    let hello = connect(5, "a", Some("pump"), Some(SECRET));
    good.send(&[hello, publish.clone()].concat()).await;
    assert_eq!(good.packet().await.unwrap()[..1], [0x20]);
    assert_eq!(good.packet().await.unwrap()[..4], [0x40, 2, 0, 7]);
    assert_eq!(good.packet().await.unwrap()[..5], [0x40, 4, 0, 8, 0x87]);
    let mut bad = Raw::open(&server).await;
    let hello = connect(5, "b", Some("pump"), Some("wrong"));
    bad.send(&[hello, publish].concat()).await;
    assert_eq!(bad.packet().await.unwrap()[3], 0x86);
    drop((good, bad));
    assert_eq!(publications(&server.end().await), ["plant/pump/t"]);
}

/// A listener that asks for certificates, below `certified/<name>`.
async fn with_certificates(pki: &Pki, revoked: bool) -> Server {
    let mut tls = pki.mutual_tls("certified/%u/#");
    if revoked && let Some(clients) = &mut tls.clients {
        clients.revoked = Some(pki.path("revoked.pem"));
    }
    let (writer, held) = gate();
    drop(held);
    serve_as(writer, &config(Some(tls), None), Sessions::none()).await
}

#[tokio::test]
async fn a_certificate_is_a_name_and_publishes_below_it() {
    let pki = Pki::new();
    let server = with_certificates(&pki, false).await;
    let device = pki.device("pump-7");
    for versions in [&version::TLS13, &version::TLS12] {
        let client = pki.client_of(Some(&device), &[versions]);
        let hello = connect(5, "a", None, None);
        let (mut stream, code) = tls_code(&server, client, &hello).await.unwrap();
        assert_eq!(code, 0);
        for (id, topic, expected) in [(1, "certified/pump-7/t", 2), (2, "certified/pump-8/t", 4)] {
            stream.write_all(&publish_v5(id, topic)).await.unwrap();
            let answer = packet(&mut stream).await.unwrap();
            assert_eq!(answer[..4], [0x40, expected, 0, id as u8], "{topic}");
        }
    }
    assert_eq!(publications(&server.end().await), ["certified/pump-7/t"; 2]);
}

#[tokio::test]
async fn certificates_that_are_none_get_nowhere_and_hear_why() {
    let pki = Pki::new();
    pki.put_revoked(&[7]);
    let server = with_certificates(&pki, true).await;
    let hello = connect(5, "a", None, None);
    let foreign = Pki::of("another authority").device("pump-7");
    let cases: [(&str, Option<Pair>, &str); 4] = [
        ("expired", Some(pki.expired("pump-7")), "CertificateExpired"),
        ("foreign", Some(foreign), "UnknownCA"),
        ("missing", None, "CertificateRequired"),
        (
            "revoked",
            Some(pki.numbered("pump-7", 7)),
            "CertificateRevoked",
        ),
    ];
    for (what, pair, alert) in cases {
        let said = tls_code(&server, pki.client(pair.as_ref()), &hello).await;
        let said = said.map(|(_, code)| code).unwrap_err();
        assert!(said.contains(alert), "{what}: {said}");
    }
    let good = pki.numbered("pump-7", 8);
    let (_, code) = tls_code(&server, pki.client(Some(&good)), &hello)
        .await
        .unwrap();
    assert_eq!(code, 0);
    let nameless = pki.device("");
    let (_, code) = tls_code(&server, pki.client(Some(&nameless)), &hello)
        .await
        .unwrap();
    assert_eq!(code, 0x87, "good, but nobody's");
    server.end().await;
}

#[tokio::test]
async fn what_is_no_tls_ends_its_connection_and_no_other() {
    let pki = Pki::new();
    let server = with_users(&pki).await;
    let hello = connect(5, "good", Some("pump"), Some(SECRET));
    let (mut good, _) = tls_code(&server, pki.client(None), &hello).await.unwrap();
    let plain = connect(4, "a", None, None);
    // A hello of TLS that claims more than it may, and one that is cut off.
    let huge = [&[0x16, 3, 1, 0xff, 0xff], [0; 64].as_slice()].concat();
    for garbage in [
        plain.as_slice(),
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 300],
        &huge,
    ] {
        let mut socket = TcpStream::connect(server.tls.unwrap()).await.unwrap();
        socket.write_all(garbage).await.unwrap();
        let mut answer = Vec::new();
        // An alert, perhaps, and the end; never a CONNACK.
        let _ = socket.read_to_end(&mut answer).await;
        assert_ne!(answer.first(), Some(&0x20), "{garbage:02x?}");
    }
    let mut cut = TcpStream::connect(server.tls.unwrap()).await.unwrap();
    cut.write_all(&[0x16, 3, 1]).await.unwrap();
    drop(cut);
    good.write_all(&[0xc0, 0]).await.unwrap();
    assert_eq!(packet(&mut good).await.unwrap(), [0xd0, 0]);
    drop(good);
    server.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_takes_too_long_ends() {
    let pki = Pki::new();
    let server = with_users(&pki).await;
    let begun = tokio::time::Instant::now();
    let mut slow = TcpStream::connect(server.tls.unwrap()).await.unwrap();
    slow.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
    assert_eq!(slow.read(&mut [0; 8]).await.unwrap(), 0);
    // The clock is the test's: it jumps to the deadline.
    assert_eq!(begun.elapsed().as_secs(), 5);
    server.end().await;
}

#[tokio::test]
async fn clients_that_are_stuck_in_their_handshake_keep_nobody_out() {
    let pki = Pki::new();
    let server = with_users(&pki).await;
    let mut stuck = Vec::new();
    for _ in 0..200 {
        let mut socket = TcpStream::connect(server.tls.unwrap()).await.unwrap();
        socket.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
        stuck.push(socket);
    }
    for n in 0..4 {
        let hello = connect(5, &format!("c{n}"), Some("pump"), Some(SECRET));
        let (_, code) = tls_code(&server, pki.client(None), &hello).await.unwrap();
        assert_eq!(code, 0);
    }
    drop(stuck);
    server.end().await;
}

/// A client of `user` that was let in.
async fn entered(server: &Server, id: &str, user: &str) -> Raw {
    let mut raw = Raw::open(server).await;
    raw.send(&connect(5, id, Some(user), Some(SECRET))).await;
    assert_eq!(raw.packet().await.unwrap()[3], 0);
    raw
}

async fn is_served(raw: &mut Raw) {
    raw.send(&[0xc0, 0]).await;
    assert_eq!(raw.packet().await.unwrap(), [0xd0, 0]);
}

#[tokio::test]
async fn who_is_removed_is_put_out_and_the_others_stay() {
    let pki = Pki::new();
    let server = with_users(&pki).await;
    let mut pump = entered(&server, "a", "pump").await;
    let mut valve = entered(&server, "b", "valve").await;
    remove(&pki.path("users.toml"), "pump");
    // Nobody says so: the file has changed.
    assert_eq!(pump.packet().await.unwrap(), [0xe0, 1, 0x87]);
    assert_eq!(pump.packet().await, None);
    is_served(&mut valve).await;
    let again = connect(5, "a", Some("pump"), Some(SECRET));
    assert_eq!(code(&server, &again).await, 0x86);
    // Who may do something else now comes again, and may.
    put(&pki.path("users.toml"), "valve", "other/#");
    server.reload.now();
    assert_eq!(valve.packet().await.unwrap(), [0xe0, 1, 0x87]);
    let mut valve = entered(&server, "b", "valve").await;
    valve.send(&publish_v5(1, "other/x")).await;
    assert_eq!(valve.packet().await.unwrap()[..4], [0x40, 2, 0, 1]);
    drop((pump, valve));
    server.end().await;
}

#[tokio::test]
async fn files_that_are_broken_change_nothing() {
    let (log, _guard) = Log::begin();
    let pki = Pki::new();
    let server = with_users(&pki).await;
    let mut pump = entered(&server, "a", "pump").await;
    pki.write("users.toml", "[users.pump\n");
    pki.write("server.pem", "no certificate");
    server.reload.now();
    log.says("MQTT: users stay as they were").await;
    log.says("MQTT: certificates stay as they were").await;
    is_served(&mut pump).await;
    let hello = connect(5, "b", Some("valve"), Some(SECRET));
    let (_, code) = tls_code(&server, pki.client(None), &hello).await.unwrap();
    assert_eq!(code, 0);
    // The key is of the new certificate, which is not there yet.
    pki.put_server();
    pki.write("server.pem", &pki.device("x").certificate);
    server.reload.now();
    log.says("do not go together").await;
    let (_, code) = tls_code(&server, pki.client(None), &hello).await.unwrap();
    assert_eq!(code, 0);
    drop(pump);
    server.end().await;
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_who_comes_and_nobody_is_put_out() {
    let pki = Pki::new();
    let server = with_users(&pki).await;
    let shown = |stream: &Tls| {
        let (_, session) = stream.get_ref();
        session.peer_certificates().unwrap()[0].as_ref().to_vec()
    };
    let hello = connect(5, "old", Some("pump"), Some(SECRET));
    let (mut old, _) = tls_code(&server, pki.client(None), &hello).await.unwrap();
    let before = shown(&old);
    pki.put_server();
    // A change of the users that ends a connection comes behind the change of certificates.
    let mut valve = entered(&server, "b", "valve").await;
    remove(&pki.path("users.toml"), "valve");
    server.reload.now();
    assert_eq!(valve.packet().await.unwrap(), [0xe0, 1, 0x87]);
    let hello = connect(5, "new", Some("pump"), Some(SECRET));
    let (new, code) = tls_code(&server, pki.client(None), &hello).await.unwrap();
    assert_eq!(code, 0);
    assert_ne!(shown(&new), before);
    old.write_all(&[0xc0, 0]).await.unwrap();
    assert_eq!(packet(&mut old).await.unwrap(), [0xd0, 0]);
    drop((old, new, valve));
    server.end().await;
}

#[tokio::test]
async fn a_certificate_that_is_taken_back_ends_its_connection() {
    let pki = Pki::new();
    pki.put_revoked(&[]);
    let server = with_certificates(&pki, true).await;
    let device = pki.numbered("pump-7", 7);
    let hello = connect(5, "a", None, None);
    let client = pki.client(Some(&device));
    let (mut stream, code) = tls_code(&server, Arc::clone(&client), &hello)
        .await
        .unwrap();
    assert_eq!(code, 0);
    pki.put_revoked(&[7]);
    server.reload.now();
    assert_eq!(packet(&mut stream).await.unwrap(), [0xe0, 1, 0x87]);
    let said = tls_code(&server, client, &hello)
        .await
        .map(|(_, code)| code);
    assert!(said.unwrap_err().contains("CertificateRevoked"));
    server.end().await;
}

/// An MQTT 5 CONNECT of a user, whose will is published 30 s after it is lost.
fn connect_with_late_will(user: Option<&str>, id: &str, topic: &str) -> Vec<u8> {
    let flags = if user.is_some() { 0xc6 } else { 6 };
    let mut body = [&[0, 4], b"MQTT".as_slice(), &[5, flags, 0, 60]].concat();
    body.extend([5, 0x11, 0, 0, 2, 88, 0, id.len() as u8]);
    body.extend(id.as_bytes());
    body.extend([5, 0x18, 0, 0, 0, 30]);
    let secret = user.map(|_| SECRET);
    for text in [Some(topic), Some("lost"), user, secret]
        .into_iter()
        .flatten()
    {
        body.extend([0, text.len() as u8]);
        body.extend(text.as_bytes());
    }
    [&[0x10, body.len() as u8], body.as_slice()].concat()
}

/// Changes what a user may publish to, and nothing else.
fn grant(path: &Path, name: &str, filter: &str) {
    let mut editing = Editing::begin(path).unwrap();
    let mut user = User::clone(editing.users.find(name).unwrap().1);
    user.grants = Arc::new(Grants::parse(&[filter.to_owned()], false).unwrap());
    editing.users.insert(name, user).unwrap();
    editing.save().unwrap();
}

#[tokio::test]
async fn a_will_that_waits_is_not_published_once_its_user_may_not() {
    let (log, _guard) = Log::begin();
    let pki = Pki::new();
    let users = pki.path("users.toml");
    let names = ["gone", "renewed", "moved", "narrowed", "untouched"];
    names
        .iter()
        .for_each(|name| put(&users, name, "plant/%u/#"));
    let (writer, held) = gate();
    drop(held);
    let config = config(None, Some(users.clone()));
    let mut server = serve_as(writer, &config, Sessions::none()).await;
    for name in names {
        let mut raw = Raw::open(&server).await;
        let topic = format!("plant/{name}/state");
        raw.send(&connect_with_late_will(Some(name), "a", &topic))
            .await;
        assert_eq!(raw.packet().await.unwrap()[3], 0);
        // Closed by the server: the will waits from here on.
        raw.send(&[0xe0, 1, 4]).await;
        assert_eq!(raw.packet().await, None);
    }
    remove(&users, "gone");
    put(&users, "renewed", "plant/%u/#");
    grant(&users, "moved", "elsewhere/#");
    grant(&users, "narrowed", "plant/%u/state");
    server.reload.now();
    log.says("MQTT: users read again").await;
    // From here on the clock is the test's.
    tokio::time::pause();
    let mut frames = Vec::new();
    while publications(&frames).len() < 2 {
        frames.push(server.wal.committed.recv().await.unwrap());
    }
    let published = ["plant/narrowed/state", "plant/untouched/state"];
    assert_eq!(publications(&frames), published);
    assert_eq!(publications(&server.end().await), [""; 0], "and no other");
    let said = log.text().matches("a will is not published").count();
    assert_eq!(said, 1, "of three");
}

/// Who may come by which certificates has changed while its will waited: whether the one it came
/// with would be let in nobody knows.
#[tokio::test]
async fn a_will_that_waits_is_not_published_once_certificates_are_taken_back() {
    let (log, _guard) = Log::begin();
    let pki = Pki::new();
    pki.put_revoked(&[]);
    let server = with_certificates(&pki, true).await;
    let device = pki.numbered("pump-7", 7);
    let hello = connect_with_late_will(None, "a", "certified/pump-7/state");
    let client = pki.client(Some(&device));
    let (mut stream, code) = tls_code(&server, client, &hello).await.unwrap();
    assert_eq!(code, 0);
    stream.write_all(&[0xe0, 1, 4]).await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    pki.put_revoked(&[7]);
    server.reload.now();
    log.says("MQTT: certificates read again").await;
    tokio::time::pause();
    log.says("a will is not published").await;
    assert_eq!(publications(&server.end().await), [""; 0]);
}

/// What is logged on this thread: everything of the listener, as the test's runtime has no other.
#[derive(Clone, Default)]
struct Log(Arc<(Mutex<String>, tokio::sync::Notify)>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let (said, notify) = &*self.0;
        said.lock()
            .unwrap()
            .push_str(&String::from_utf8_lossy(bytes));
        notify.notify_one();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn begin() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        self.0.0.lock().unwrap().clone()
    }

    /// Waits until it was said.
    async fn says(&self, words: &str) {
        while !self.text().contains(words) {
            self.0.1.notified().await;
        }
    }
}

#[tokio::test]
async fn no_password_is_logged() {
    let (log, _guard) = Log::begin();
    let pki = Pki::new();
    let server = with_users(&pki).await;
    for (user, password) in [
        ("pump", SECRET),
        ("pump", "mistyped-secret"),
        ("secret-in-the-wrong-field", "x"),
    ] {
        let hello = connect(5, "a", Some(user), Some(password));
        code(&server, &hello).await;
        let _ = tls_code(&server, pki.client(None), &hello).await.unwrap();
    }
    server.reload.now();
    server.end().await;
    let said = log.text();
    assert!(said.contains("a wrong password"), "it was logged: {said}");
    for secret in [SECRET, "mistyped", "secret-in", "$argon2"] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
}
