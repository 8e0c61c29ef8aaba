//! What is said against wrong rules, and how right ones are kept.

use super::*;
use crate::limits::DETECT_RULES_MAX;

// tidy: function because it is one table.
#[test]
fn everything_wrong_is_said_at_once_with_its_line() {
    let text = r#"[[detect.rule]]
kind = "treshold"
metric = "t"
above = 1

[[detect.rule]]
name = "a"
kind = "threshold"
metric = "t"
over = 3
message = "{devise}"
cool_down_s = -1
for_s = 10

[[detect.rule]]
name = "b"
kind = "threshold"
metric = "t"
above = 10
below = 5
hysteresis = 3
severity = "criticle"

[[detect.rule]]
name = "c"
kind = "silence"
metric = "t"
for_s = 3
intervals = 3

[[detect.rule]]
name = "d"
kind = "compare"
metric = "t*"
op = ">"
other_metric = "t"
tolerance = 1

[[detect.rule]]
name = "ok"
kind = "range"
metric = "t"
min = 1

[[detect.rule]]
name = "ok"
kind = "stuck"
metric = "t"
readings = 2
"#;
    assert_eq!(
        wrong(text),
        [
            "line 1: `detect.rule[0].name` is missing: what are its alerts called?",
            "line 2: `detect.rule[0].kind` is \"treshold\"; did you mean \"threshold\"?",
            "line 6: `detect.rule[1]` has neither `above` nor `below`: what is its limit?",
            "line 10: `detect.rule[1].over` is not known; did you mean `detect.rule[1].over_s`?",
            "line 11: `detect.rule[1].message` names `{devise}`; did you mean `{device}`?",
            "line 12: `detect.rule[1].cool_down_s` is -1 seconds; expected 0 to 2678400",
            "line 13: `detect.rule[1].for_s` has no meaning with `kind = \"threshold\"`",
            "line 21: `detect.rule[2].hysteresis` is 3: no value is so far from both `above` and \
             `below`, and no alert would end",
            "line 22: `detect.rule[2].severity` is \"criticle\"; did you mean \"critical\"?",
            "line 28: `detect.rule[3].for_s` and `intervals` exclude each other",
            "line 34: `detect.rule[4].metric` holds `*`: a comparison is of two series, each by \
             its name",
            "line 37: `detect.rule[4].tolerance` has a meaning with `op = \"!=\"` alone",
            "line 46: `detect.rule[6].name` is \"ok\", and so is that of a rule above",
        ]
    );
}

#[test]
fn single_settings_have_bounds_that_are_told() {
    let said = |settings: &str| {
        let text = format!("[[detect.rule]]\nname = \"a\"\nmetric = \"t\"\n{settings}\n");
        let wrong = wrong(&text);
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        wrong[0].split_once("detect.rule[0]").unwrap().1.to_owned()
    };
    for (settings, expected) in [
        (
            "kind = \"threshold\"\nabove = nan",
            ".above` is `nan`: no number at all; expected a finite number",
        ),
        (
            "kind = \"threshold\"\nabove = 1\nbelow = 2",
            ".above` is 1, less than `below`, 2",
        ),
        (
            "kind = \"range\"\nmin = 3\nmax = 2",
            ".min` is 3, more than `max`, 2",
        ),
        ("kind = \"range\"", "` has neither `min` nor `max`"),
        (
            "kind = \"rate\"\nabove = 1\nover_s = 0",
            ".over_s` is 0 seconds; expected 0.001 to",
        ),
        (
            "kind = \"stuck\"",
            "` has neither `for_s` nor `readings`: how long?",
        ),
        (
            "kind = \"stuck\"\nreadings = 1",
            ".readings` is 1; expected 2 to 1000000000",
        ),
        (
            "kind = \"silence\"\nintervals = 1",
            ".intervals` is 1; expected 1.5 to 1000000",
        ),
        (
            "kind = \"compare\"\nop = \"=\"\nother_metric = \"u\"",
            ".op` is \"=\"; expected one of >, >=, <, <=, !=: that two are equal is `kind",
        ),
        (
            "kind = \"compare\"\nop = \">\"\nother_metric = \"t\"",
            ".other_metric` is the metric itself",
        ),
        (
            "kind = \"compare\"\nop = \">\"\nother_metric = \"t\"\nother_device = \"x\"",
            ".device` holds `*` or is missing",
        ),
        (
            "kind = \"range\"\nmin = 0\ndevice = \"\"",
            ".device` is no pattern of names",
        ),
    ] {
        let said = said(settings);
        assert!(said.starts_with(expected), "{settings}: {said}");
    }
    let said =
        wrong("[[detect.rule]]\nname = \"a\"\nkind = \"expression\"\nwhen = \"a > mena(b, 60s)\"");
    let expected = "line 4: `detect.rule[0].when` is wrong at character 5: no function is called \
                    `mena`; did you mean `mean`?";
    assert_eq!(said, [expected]);
    let many = "[[detect.rule]]\nname = \"x\"\n".repeat(DETECT_RULES_MAX + 1);
    assert!(
        wrong(&many)
            .iter()
            .any(|said| said.contains("is one too many: at most 256 rules"))
    );
}

/// Every kind, with every setting.
const ALL: &str = r#"
    [[detect.rule]]
    name = "a \"quoted\" name"
    kind = "threshold"
    metric = "t"
    above = 1e300
    below = -0.1
    hysteresis = 0.25
    hold_s = 1.5

    [[detect.rule]]
    name = "b"
    kind = "range"
    device = "p*"
    metric = "*"
    max = 3
    severity = "info"

    [[detect.rule]]
    name = "c"
    kind = "rate"
    metric = "t"
    below = 3
    over_s = 0.001
    cool_down_s = 86400

    [[detect.rule]]
    name = "d"
    kind = "stuck"
    metric = "t"
    readings = 7
    message = "ü\t{{"

    [[detect.rule]]
    name = "e"
    kind = "stuck"
    metric = "t"
    for_s = 7
    tolerance = 0.5

    [[detect.rule]]
    name = "f"
    kind = "silence"
    metric = "t"
    intervals = 2.5

    [[detect.rule]]
    name = "g"
    kind = "silence"
    metric = "t"
    for_s = 2.5

    [[detect.rule]]
    name = "h"
    kind = "compare"
    device = "a"
    metric = "t"
    op = "!="
    other_device = "b"
    other_metric = "u"
    tolerance = 3
    stale_s = 5

    [[detect.rule]]
    name = "i"
    kind = "compare"
    metric = "t"
    op = "<="
    other_metric = "u"
    offset = -2
    hysteresis = 1
    hold_s = 5

    [[detect.rule]]
    name = "j"
    kind = "expression"
    when = "not (a>1) or 'b c' <= .5e1 and std(a,90s) != min( a , 2.5 )"
    hold_s = 5

    [[detect.rule]]
    name = "k"
    kind = "expression"
    device = "p*"
    metric = "under this"
    when = "a > 1"
    stale_s = 5
"#;

#[test]
fn what_is_kept_means_what_was_written_and_is_kept_the_same() {
    let written = rules(ALL);
    assert_eq!(written.len(), 11);
    let kept = rules(written.text());
    assert_eq!(kept, written);
    assert_eq!(kept.text(), written.text());
    assert_eq!(kept.hash(), written.hash());
    for ((_, kept), (_, written)) in kept.iter().zip(written.iter()) {
        assert_eq!(kept, written);
    }
    assert_eq!(written.revision().0, written.hash()[..8]);
    assert_ne!(written.hash(), Rules::none().hash());
    assert!(rules("").is_empty());
    // Spelled otherwise, the same.
    let other = ALL
        .replace("above = 1e300", "above = 1.0e300")
        .replace("= 86400", "= 86_400.0");
    assert_eq!(rules(&other), written);
}

/// What is kept stays what it is: its hash names states on disk.
#[test]
fn the_text_that_is_kept_is_a_format() {
    let kept = rule("name = \"hot\"\nkind = \"threshold\"\nmetric = \"t\"\nabove = 80\nhold_s = 1");
    let expected = "# Rules of detection, as this agent keeps them: do not edit.\n\n\
        [[detect.rule]]\nname = \"hot\"\nkind = \"threshold\"\ndevice = \"*\"\nmetric = \"t\"\n\
        above = 80.0\nhysteresis = 0.0\nhold_s = 1.0\nseverity = \"warning\"\n\
        message = \"{device}: {metric} is {value} {unit}, beyond {limit} {unit}\"\n\
        message_cleared = \"{device}: {metric} is {value} {unit} again, the alert \\\"{rule}\\\" \
        is over\"\ncool_down_s = 0.0\n";
    assert_eq!(kept.text(), expected);
}

/// Every block of TOML in the documentation's section.
fn documented(section: &str) -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/detection.md");
    let text = std::fs::read_to_string(path).unwrap();
    let text = text.split(&format!("\n## {section}\n")).nth(1).unwrap();
    let text = text.split("\n## ").next().unwrap();
    let blocks = text.split("```toml\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap().to_owned())
        .collect()
}

#[test]
fn what_the_documentation_shows_is_right_and_shows_every_kind() {
    let blocks = documented("Rules");
    assert!(!blocks.is_empty());
    let shown: Vec<String> = blocks
        .iter()
        .map(|block| rules(block).text().to_owned())
        .collect();
    for form in &super::super::read::FORMS {
        let kind = format!("kind = \"{}\"", form.name);
        assert!(shown.iter().any(|text| text.contains(&kind)), "{kind}");
    }
}

#[test]
fn levels_of_a_filter_in_a_pattern_are_warned_of() {
    let warned = |text: &str| {
        let mut document = Document::parse(text, "", []);
        let settings = crate::detect::Settings::read(&mut document.root().section("detect"));
        drop(settings);
        let said: Vec<String> = document
            .warnings()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(document.finish(), [], "{text}");
        said.join("\n")
    };
    let rule = "[[detect.rule]]\nname = \"a\"\nkind = \"range\"\nmax = 1\n";
    let vibration = "[[detect.vibration]]\nmetric = \"v\"\n";
    let group = "[[detect.group]]\nname = \"g\"\nmetrics = [\"a\", \"b\"]\n";
    for (text, key) in [
        (
            format!("{rule}metric = \"t\"\ndevice = \"line1/#\"\n"),
            "detect.rule[0].device",
        ),
        (format!("{rule}metric = \"+\"\n"), "detect.rule[0].metric"),
        (
            format!("{vibration}device = \"+/press\"\n"),
            "detect.vibration[0].device",
        ),
        (
            format!("{group}device = \"line1/+#\"\n"),
            "detect.group[0].device",
        ),
    ] {
        let said = warned(&text);
        assert!(said.contains(&format!("`{key}` is ")), "{text}: {said}");
        assert!(said.contains("in a pattern write `*`"), "{said}");
    }
    let star = warned(&group.replace("\"b\"", "\"b*\""));
    assert!(
        star.contains("line 3: `detect.group[0].metrics` holds `b*`"),
        "{star}"
    );
    for metric in ["a+b", "C#", "*/x", "t"] {
        assert_eq!(warned(&format!("{rule}metric = \"{metric}\"\n")), "");
    }
}
