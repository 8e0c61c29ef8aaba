//! From CONNECT to CONNACK: how long it may take, and what is not even held.

use super::*;
use crate::limits::{PASSWORD_BYTES_MAX, USER_NAME_BYTES_MAX};

/// Whatever the decision waits for, it has one deadline, from CONNECT on.
#[test]
fn an_arrival_that_takes_too_long_is_told_that_it_is_busy() {
    for (version, said) in [(V4, &[0x20, 2, 0, 3][..]), (V5, &[0x20, 3, 0, 0x89, 0])] {
        let mut client = Client::new();
        client.send(&connect(version, "me", 10));
        let due = client.start + ARRIVAL_TIMEOUT;
        assert_eq!(client.core.poll_timeout(client.at(59_000)), Some(due));
        client.core.handle_timeout(due - Duration::from_millis(1));
        assert_eq!(
            (client.said().as_slice(), client.over()),
            (&[][..], "not over")
        );
        client.core.handle_timeout(due);
        assert_eq!((client.said().as_slice(), client.over()), (said, "arrival"));
        // A decision that comes after all lets nobody in.
        let now = client.now();
        client
            .core
            .handle_admission(GRANTED, now, &mut client.batch);
        assert_eq!(
            (client.said().as_slice(), client.over()),
            (&[][..], "arrival")
        );
    }
}

/// What is longer than any is nobody's: it is refused before it is held.
#[test]
fn long_credentials_are_refused_at_once() {
    let connect = |version, user_bytes: usize, password_bytes: usize| {
        let level = if version == V5 { 5 } else { 4 };
        let mut body = [&[0, 4], b"MQTT".as_slice(), &[level, 0xc2, 0, 60]].concat();
        body.extend((version == V5).then_some(0));
        body.extend(b"\0\x01a");
        for bytes in [user_bytes, password_bytes] {
            body.extend((bytes as u16).to_be_bytes());
            body.resize(body.len() + bytes, b'x');
        }
        let length = [body.len() as u8 | 0x80, (body.len() >> 7) as u8];
        [&[0x10], &length[..], &body].concat()
    };
    let (user, password) = (USER_NAME_BYTES_MAX, PASSWORD_BYTES_MAX);
    for (version, said) in [(V4, &[0x20, 2, 0, 4][..]), (V5, &[0x20, 3, 0, 0x86, 0])] {
        for (user, password) in [(user + 1, 1), (1, password + 1), (8_000, 8_000)] {
            let mut client = Client::new();
            client.send(&connect(version, user, password));
            assert_eq!(
                (client.said().as_slice(), client.over()),
                (said, "credentials")
            );
            assert_eq!(client.core.take_arrival(), None);
            assert_eq!(client.core.held_bytes(), 0);
        }
        let mut client = Client::new();
        client.send(&connect(version, user, password));
        let arrival = client.core.take_arrival().unwrap();
        assert_eq!(arrival.user.unwrap().len(), user);
        assert_eq!(arrival.password.unwrap().bytes().len(), password);
    }
}
