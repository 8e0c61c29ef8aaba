//! Clients that take more than their share, or give nothing back: the others go on.

use super::*;

/// One that publishes and never reads an answer is closed, and the server goes on.
#[tokio::test]
async fn who_reads_no_answers_is_closed() {
    let (writer, held) = gate();
    drop(held); // everything is durable at once
    let (server, taking) = taken(serve(writer).await);
    // MQTT 3.1.1 without a keep alive: nothing but the stall can end it.
    let mut mute = TcpStream::connect(server.address).await.unwrap();
    let connect = [&b"\x10\x10\0\x04MQTT\x04\x02\0\0\0\x04"[..], b"mute"].concat();
    mute.write_all(&connect).await.unwrap();
    let flood = b"\x32\x06\0\x01a\0\x01x".repeat(1_000);
    let (mut unread, mut mute) = mute.into_split();
    // From here on the clock jumps whenever nobody can do anything.
    tokio::time::pause();
    while mute.write_all(&flood).await.is_ok() {}
    tokio::time::resume();
    let mut good = Raw::connected(&server, 4, "good").await;
    good.publish(1, 7, "a", b"1").await;
    assert_eq!(good.packet().await.unwrap(), [0x40, 2, 0, 7]);
    // What it left unread is not much.
    let mut answers = Vec::new();
    let _ = unread.read_to_end(&mut answers).await;
    assert!(answers.len() > 1_000, "it was answered before");
    drop((good, mute));
    server.end().await;
    taking.await.unwrap();
}

/// Ten times its share waits; what others publish does not wait behind it.
#[tokio::test]
async fn who_publishes_ten_times_its_share_waits_alone() {
    const SHARE: u32 = 200;
    let (writer, held) = gate();
    drop(held);
    let (server, taking) = taken(serve_at(writer, Sessions::none(), SHARE).await);
    let mut greedy = Raw::connected(&server, 4, "greedy").await;
    for id in 1..=10 * SHARE as u16 {
        greedy.publish(1, id, "a", b"greedy").await;
    }
    let mut polite = Raw::connected(&server, 4, "polite").await;
    for id in 1..=SHARE as u16 / 20 {
        polite.publish(1, id, "a", b"polite").await;
        assert_eq!(polite.packet().await.unwrap()[..3], [0x40, 2, 0]);
    }
    drop(polite);
    server.end().await;
    let frames = taking.await.unwrap();
    let greedy = messages(&frames)
        .iter()
        .filter(|(_, payload)| payload == b"greedy")
        .count();
    assert!(greedy >= SHARE as usize, "its share at once: {greedy}");
    assert!(greedy < 10 * SHARE as usize, "not all of it: {greedy}");
}
