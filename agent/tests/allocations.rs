//! Decoding allocates nothing once it is warm: neither by the rules that always hold, nor by
//! configured ones, nor for a message that no rule is for.

use allocation_counter::measure;
use tributary_agent::decode::{Incoming, Rows, Rules, UserProperties};

#[test]
fn decoding_allocates_nothing_once_it_is_warm() {
    let configured = Rules::parse(
        "[[decode]]\ntopic = \"plant/{site}/{device}/+/{metric}\"\ndevice = \"{site}/{device}\"\n\
         [[decode]]\ntopic = \"many/{device}\"\nvalues = { a = \"/a\", b = \"/x/b\" }\n\
         time_unit = \"ms\"\nunit = \"bar\"\n[decode.metrics.a]\nscale = 0.1\ntype = \"f64\"\n\
         [[decode]]\ntopic = \"wave/#\"\nformat = \"waveform\"\n\
         [[decode]]\ntopic = \"bytes/#\"\nformat = \"i16be\"\nrate_hz = 1000\nscale = 0.5\n",
    )
    .unwrap();
    let samples = [7u8; 512];
    let messages: [(&str, &[u8]); 8] = [
        (
            "site/pump/temp",
            b"{\"value\":21.5,\"ts\":1769848199250,\"seq\":7,\"unit\":\"C\"}",
        ),
        (
            "site/pump",
            b"{\"a\":{\"b\":[1,2,\"x\"]},\"ts\":\"2026-01-31T08:29:59Z\"}",
        ),
        ("site/pump/rpm", b"1480"),
        ("plant/n/p7/x/rpm", b"{\"value\":true}"),
        (
            "many/p",
            b"{\"a\":215,\"x\":{\"b\":\"on\"},\"ts\":1769848199250,\"c\":[1,2,3]}",
        ),
        (
            "wave/p/i",
            b"{\"ts\":1769848199250,\"rate_hz\":100,\"samples\":[1,2.5,null,4]}",
        ),
        ("bytes/p/i", &samples),
        ("none/of/them", b"[1,2,{\"value\":3}]"),
    ];
    assert!(measure(|| drop(vec![0u8; 9])).count_total > 0, "it counts");
    let mut rows = Rows::new();
    for rules in [&Rules::builtin(), &configured] {
        let mut read = 0;
        let mut all = |rows: &mut Rows| {
            for (topic, payload) in messages {
                let incoming = Incoming {
                    topic,
                    payload,
                    properties: UserProperties::NONE,
                    received_time: 1_769_848_200_000_000,
                };
                read += rules
                    .decode(&incoming, rows)
                    .map_or(0, |decoded| decoded.readings);
            }
        };
        all(&mut rows);
        let counted = measure(|| (0..10).for_each(|_| all(&mut rows)));
        assert_eq!(counted.count_total, 0, "{counted:?}");
        assert!(read > 100, "{read}");
    }
}
