//! What expressions mean, what is said against wrong ones, and that none does more than its length.

use super::program::{Op, Source, run};
use super::windows::Fold;
use super::*;
use crate::limits::{EXPRESSION_BYTES_MAX, EXPRESSION_OPS_MAX, EXPRESSION_STACK_MAX};
use proptest::prelude::*;

/// Metrics `a`, `b`, `c` with these values, and what is asked beside.
struct Fake([f64; 3]);

impl Source for Fake {
    fn value(&self, metric: u8) -> f64 {
        self.0[usize::from(metric)]
    }
    fn previous(&self, metric: u8) -> f64 {
        self.0[usize::from(metric)] - 1.0
    }
    fn age(&self, metric: u8) -> f64 {
        f64::from(metric)
    }
    fn window(&self, window: u8, fold: Fold) -> f64 {
        f64::from(window) * 100.0 + fold as u8 as f64
    }
}

/// What an expression gives for values of its metrics in the order in which it names them.
fn given(text: &str, values: [f64; 3]) -> Option<bool> {
    let expression = Expression::parse(text).unwrap_or_else(|wrong| panic!("{text}: {wrong}"));
    run(&expression.program.ops, &Fake(values))
        .0
        .map(|value| value != 0.0)
}

fn wrong(text: &str) -> String {
    match Expression::parse(text) {
        Ok(expression) => panic!("{text}: {expression:?}"),
        Err(wrong) => wrong,
    }
}

#[test]
fn expressions_mean_what_the_table_says() {
    for (text, values, expected) in [
        ("a > 80", [81.0, 0.0, 0.0], Some(true)),
        ("a > 80", [80.0, 0.0, 0.0], Some(false)),
        ("a + b * 2 == 7", [1.0, 3.0, 0.0], Some(true)),
        ("(a + b) * 2 == 8", [1.0, 3.0, 0.0], Some(true)),
        ("a - b - 1 == 1", [5.0, 3.0, 0.0], Some(true)),
        ("-a < -1", [2.0, 0.0, 0.0], Some(true)),
        ("a % 3 == 1 && b / 2 >= 1.5", [7.0, 3.0, 0.0], Some(true)),
        ("a > 1 || b > 1 && c > 1", [2.0, 0.0, 0.0], Some(true)),
        ("(a > 1 || b > 1) && c > 1", [2.0, 0.0, 0.0], Some(false)),
        ("not (a > 1) and !(b > 1)", [0.0, 0.0, 0.0], Some(true)),
        ("a > 1 or b <= 1", [0.0, 1.0, 0.0], Some(true)),
        (
            "abs(a) + sqrt(b) + floor(c) == 9",
            [-3.0, 16.0, 2.9],
            Some(true),
        ),
        (
            "max(a, 3) == 3 && min(a, 3) == 1 && pow(a + 1, 3) == 8",
            [1.0; 3],
            Some(true),
        ),
        ("ln(exp(a)) > 0.99", [1.0; 3], Some(true)),
        ("previous(a) == 4 && age(b) == 1", [5.0; 3], Some(true)),
        // The first window's count, and the second one's standard deviation.
        (
            "count(a, 60s) == 0 && std(a, 2m) == 106",
            [5.0; 3],
            Some(true),
        ),
        ("min(a, 60s) == 3 && max(a, 1m) == 4", [5.0; 3], Some(true)),
        ("'motor/a b''c' > 1", [2.0; 3], Some(true)),
        ("motor.rpm > 1 && größe > 1", [2.0; 3], Some(true)),
        // What is no number is neither true nor false; what is passed is not computed.
        ("a / b > 1", [1.0, 0.0, 0.0], None),
        ("b != 0 && a / b > 1", [0.0, 1.0, 0.0], Some(false)),
        ("b == 0 || a / b > 1", [0.0, 1.0, 0.0], Some(true)),
        ("sqrt(a) > 1", [-1.0; 3], None),
        ("a * a > 1", [1e200; 3], None),
        ("exp(a) > 1", [1e3; 3], None),
    ] {
        assert_eq!(given(text, values), expected, "{text}");
    }
}

// tidy: function because it is one table.
#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, expected) in [
        (
            "",
            "character 1: here it ends; expected a metric or a number",
        ),
        ("a >", "character 4: here it ends"),
        (
            "a > 80 b",
            "character 8: expected an operator, such as `&&`, or the end",
        ),
        ("a > 80)", "character 7: `)` without its `(`"),
        ("(a > 80", "character 8: expected `)` to close the bracket"),
        (
            "ä > 80 && mena(b, 60s) > 1",
            "character 11: no function is called `mena`; did you mean `mean`?",
        ),
        (
            "frobnicate(b) > 1",
            "character 1: no function is called `frobnicate`; known are abs, age, count, exp",
        ),
        (
            "a",
            "character 1: this is a number; expected true or false: compare it with something",
        ),
        (
            "a && b > 1",
            "character 1: this is a number; expected true or false",
        ),
        (
            "a > 1 && b",
            "character 10: this is a number; expected true or false",
        ),
        (
            "(a > 1) + 1 > 1",
            "character 1: this is true or false; expected a number",
        ),
        (
            "!a",
            "character 2: this is a number; expected true or false",
        ),
        (
            "-(a > 1) > 0",
            "character 2: this is true or false; expected a number",
        ),
        (
            "abs(a > 1) > 0",
            "character 5: this is true or false; expected a number",
        ),
        ("1 < a < 3", "character 7: comparisons are no chain"),
        (
            "1 > 2",
            "character 1: this is never true: no reading is in it",
        ),
        (
            "true",
            "character 1: this is always true: no reading is in it",
        ),
        ("a > 1 && 2 > 1", "character 10: this is always true"),
        ("false || a > 1", "character 1: this is never true"),
        (
            "a > 1 || !(abs(-3) == 3)",
            "character 10: this is never true",
        ),
        (
            "a / (2 - 2) > 1",
            "character 5: nothing can be divided by 0",
        ),
        ("a > ln(-1)", "character 5: this gives no number"),
        ("a > 60s", "character 5: a span stands only in an aggregate"),
        (
            "mean(a) > 1",
            "character 7: expected `,` and a span, such as `mean(x, 60s)`",
        ),
        (
            "mean(a, 60) > 1",
            "character 9: expected a span: a number with `ms`, `s`, `m` or `h`",
        ),
        (
            "mean(a + 1, 60s) > 1",
            "character 8: expected `,` and a span",
        ),
        (
            "mean(3, 60s) > 1",
            "character 6: expected a metric: `mean` is of one",
        ),
        ("mean(a, 60d) > 1", "character 9: `60d`: no unit of time"),
        ("mean(a, 45000m) > 2", "31 days"),
        ("mean(a, 0s) > 1", "is not between 1ms and 31 days"),
        (
            "pow(a) > 1",
            "character 6: expected `,` and a second number: `pow` is of two",
        ),
        (
            "abs(a, 1) > 1",
            "character 6: expected `)` behind what `abs` is of",
        ),
        ("a = 1", "character 3: `=` alone; did you mean `==`?"),
        ("a & b", "character 3: `&` alone; did you mean `&&`?"),
        (
            "a > 1e999",
            "character 5: `1e999` is greater than any number",
        ),
        ("a > .", "character 5: `.` is no number"),
        (
            "\"a b\" > 1",
            "character 1: a text is compared with nothing, expressions are of numbers; and a \
             metric whose name has other characters is written 'like this'",
        ),
        (
            "a == \"open\"",
            "character 6: a text is compared with nothing",
        ),
        (
            "a == NaN",
            "character 6: `NaN` is no number, and no reading",
        ),
        ("inf > a", "a metric that is called so is written `'inf'`"),
        (
            "a == true",
            "character 6: this is true or false; expected a number: a metric that is true or \
             false is 1 or 0 here, as in `== 1`",
        ),
        (
            "a => 5",
            "character 3: `=>` means nothing here; did you mean `>=`?",
        ),
        ("a =< 5", "did you mean `<=`?"),
        ("a <> 5", "did you mean `!=`?"),
        ("a === 5", "did you mean `==`?"),
        (
            "a > 5 AND b > 3",
            "character 7: words are small here; did you mean `and`?",
        ),
        ("a > 5 Or b > 3", "did you mean `or`?"),
        (
            "NOT a > 5",
            "character 5: words are small here; did you mean `not`?",
        ),
        (
            "a > 1,5",
            "character 6: `,` stands between what a function is of; a fraction is",
        ),
        (
            "a is 5",
            "character 3: expected an operator, such as `&&`, or the end",
        ),
        (
            "avg(a, 60s) > 5",
            "no function is called `avg`; did you mean `mean`?",
        ),
        ("delta(a) > 5", "did you mean `x - previous(x)`?"),
        ("'a > 1", "character 1: a name that never ends"),
        ("'' > 1", "character 1: no metric"),
        ("'a*' > 1", "character 1: no metric"),
        ("a > 1 ; b", "character 7: `;` means nothing here"),
        ("a > $1", "character 5: `$` means nothing here"),
        ("b > , 1", "character 5: `,`; expected a metric or a number"),
        ("a+b+c+d+e+f+g+h+i > 1", "character 17: more than 8 metrics"),
    ] {
        let said = wrong(text);
        assert!(said.contains(expected), "{text}: {said}");
    }
}

#[test]
fn length_depth_and_memory_have_bounds() {
    let long = format!("a > {}", "1".repeat(EXPRESSION_BYTES_MAX));
    assert!(wrong(&long).starts_with("has 1028 bytes; at most 1024"));
    let huge = "a+".repeat(20_000);
    assert!(wrong(&huge).starts_with("has 40000 bytes"));
    for nest in ["(", "-", "!", "abs(", "a > (", "max(a, "] {
        let deep = nest.repeat(EXPRESSION_BYTES_MAX / nest.len());
        let said = wrong(&deep);
        assert!(said.contains("too deep"), "{nest}: {said}");
    }
    let many = format!("a{} > 1", "+a".repeat(300));
    let said = wrong(&many);
    assert!(
        said.contains("too long from here on: at most 256 operations"),
        "{said}"
    );
    let windows: Vec<String> = (1..=9).map(|i| format!("mean(a, {i}s)")).collect();
    let said = wrong(&format!("{} > 1", windows.join("+")));
    assert!(said.contains("more than 8 windows"), "{said}");
    // All that is allowed at once.
    let most = windows[..8].join(" + ");
    let expression = Expression::parse(&format!("{most} + b + c + d + e + f + g + h > 1")).unwrap();
    let inputs = Inputs::new(&expression.program);
    assert_eq!(inputs.bytes(), 48 + 8 * 40 + 8 * 336);
    assert_eq!(size_of::<Op>(), 16);
}

#[test]
fn what_is_kept_has_one_spelling() {
    for (text, kept) in [
        ("a>80&&b<1", "a > 80.0 && b < 1.0"),
        (
            "not(a>1)or mean ( b,90s )==.5",
            "!(a > 1.0) || mean(b, 90s) == 0.5",
        ),
        (
            "max(x, 1500.5ms) > min( x,-2e3 )",
            "max(x, 1500.5ms) > min(x, - 2000.0)",
        ),
        ("'a''b' % 2 != 120s", ""),
        ("std(a, 7200s) > 0.1", "std(a, 2h) > 0.1"),
        ("'a''b' > 1", "'a''b' > 1.0"),
    ] {
        match kept {
            "" => assert!(wrong(text).contains("a span stands only in an aggregate")),
            kept => assert_eq!(&*Expression::parse(text).unwrap().text, kept),
        }
    }
}

/// An expression as a tree.
#[derive(Clone, Debug)]
enum Tree {
    Number(f64),
    Metric(usize),
    Two(&'static str, Box<Tree>, Box<Tree>),
    Negate(Box<Tree>),
    Abs(Box<Tree>),
    Not(Box<Tree>),
}

const METRICS: [&str; 3] = ["a", "'b b'", "c.c"];

impl Tree {
    /// With every bracket.
    fn text(&self) -> String {
        match self {
            Self::Number(number) => format!("{number:?}"),
            Self::Metric(metric) => METRICS[*metric].to_owned(),
            Self::Two(sign, a, b) => format!("({} {sign} {})", a.text(), b.text()),
            Self::Negate(a) => format!("-{}", a.text()),
            Self::Abs(a) => format!("abs({})", a.text()),
            Self::Not(a) => format!("!{}", a.text()),
        }
    }

    fn varies(&self) -> bool {
        match self {
            Self::Number(_) => false,
            Self::Metric(_) => true,
            Self::Two(_, a, b) => a.varies() || b.varies(),
            Self::Negate(a) | Self::Abs(a) | Self::Not(a) => a.varies(),
        }
    }

    /// By the definition: what is passed is not computed, what is no number is nothing.
    fn value(&self, values: &[f64; 3]) -> Option<f64> {
        let value = match self {
            Self::Number(number) => *number,
            Self::Metric(metric) => values[*metric],
            Self::Negate(a) => -a.value(values)?,
            Self::Abs(a) => a.value(values)?.abs(),
            Self::Not(a) => f64::from(a.value(values)? == 0.0),
            Self::Two(sign, a, b) => {
                let left = a.value(values)?;
                if (*sign == "&&" && left == 0.0) || (*sign == "||" && left != 0.0) {
                    return Some(left);
                }
                let right = b.value(values)?;
                match *sign {
                    "+" => left + right,
                    "-" => left - right,
                    "*" => left * right,
                    "/" => left / right,
                    "%" => left % right,
                    "<" => f64::from(left < right),
                    ">=" => f64::from(left >= right),
                    "==" => f64::from(left == right),
                    _ => right,
                }
            }
        };
        Some(value).filter(|value| value.is_finite())
    }
}

fn number() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        (0..METRICS.len()).prop_map(Tree::Metric),
        (0..METRICS.len()).prop_map(Tree::Metric),
        (0u32..8).prop_map(|n| Tree::Number(f64::from(n) / 2.0)),
    ];
    leaf.prop_recursive(4, 24, 2, |inner| {
        let sign = prop_oneof![Just("+"), Just("-"), Just("*"), Just("/"), Just("%")];
        prop_oneof![
            4 => (sign, inner.clone(), inner.clone())
                .prop_map(|(sign, a, b)| Tree::Two(sign, a.into(), b.into())),
            1 => inner.clone().prop_map(|a| Tree::Negate(a.into())),
            1 => inner.prop_map(|a| Tree::Abs(a.into())),
        ]
    })
}

fn truth() -> impl Strategy<Value = Tree> {
    let sign = prop_oneof![Just("<"), Just(">="), Just("==")];
    let leaf = (sign, number(), number());
    let leaf = leaf.prop_map(|(sign, a, b)| Tree::Two(sign, a.into(), b.into()));
    leaf.prop_recursive(3, 8, 2, |inner| {
        let sign = prop_oneof![Just("&&"), Just("||")];
        prop_oneof![
            4 => (sign, inner.clone(), inner.clone())
                .prop_map(|(sign, a, b)| Tree::Two(sign, a.into(), b.into())),
            1 => inner.prop_map(|a| Tree::Not(a.into())),
        ]
    })
}

proptest! {
    #[test]
    fn it_gives_what_the_tree_gives_within_its_steps(
        tree in truth(),
        values in proptest::array::uniform3((-4i32..5).prop_map(f64::from)),
    ) {
        let text = tree.text();
        let expression = match Expression::parse(&text) {
            Ok(expression) => expression,
            Err(said) => {
                // Only what may be refused is.
                let refused = ["true: no reading", "by 0", "no number", "bytes", "too long"];
                prop_assert!(refused.iter().any(|why| said.contains(why)), "{}: {}", text, said);
                return Ok(());
            }
        };
        prop_assert!(tree.varies());
        let by_name = |name: &str| {
            METRICS.iter().position(|metric| metric.trim_matches('\'') == name).unwrap()
        };
        let metrics = &expression.program.metrics;
        let mut in_order = [f64::NAN; 3];
        for (place, metric) in metrics.iter().enumerate() {
            in_order[place] = values[by_name(metric)];
        }
        let (given, steps) = run(&expression.program.ops, &Fake(in_order));
        prop_assert_eq!(given, tree.value(&values), "{}", text);
        prop_assert!(steps <= expression.program.ops.len());
        prop_assert!(expression.program.ops.len() <= EXPRESSION_OPS_MAX);
        let again = Expression::parse(&expression.text);
        prop_assert_eq!(again, Ok(expression));
    }

    #[test]
    fn no_text_makes_it_panic_and_what_is_read_is_kept(
        signs in proptest::collection::vec(prop_oneof![
            4 => Just("a"), 2 => Just("b "), 2 => Just(" > "), 2 => Just("1"), 1 => Just("60s"),
            1 => Just("("), 1 => Just(")"), 1 => Just("mean("), 1 => Just(", "), 1 => Just(" && "),
            1 => Just(" || "), 1 => Just("!"), 1 => Just("-"), 1 => Just("'"), 1 => Just("max("),
            1 => Just("true"), 1 => Just("ü"), 1 => Just("."), 1 => Just("e"), 1 => Just("=="),
        ], 0..24),
        noise in ".{0,40}",
    ) {
        for text in [signs.concat(), noise] {
            if let Ok(expression) = Expression::parse(&text) {
                run(&expression.program.ops, &Fake([1.0; 3]));
                prop_assert_eq!(Expression::parse(&expression.text), Ok(expression));
            }
        }
    }

    /// Also of operations that no parser gave: jumps go ahead only, and the stack is bounded.
    #[test]
    fn any_operations_end_within_their_number(
        ops in proptest::collection::vec(prop_oneof![
            any::<f64>().prop_map(Op::Number),
            (0u8..3).prop_map(Op::Value),
            any::<u16>().prop_map(Op::IfThen),
            any::<u16>().prop_map(Op::UnlessThen),
            Just(Op::Negate),
            Just(Op::Not),
        ], 0..2 * EXPRESSION_STACK_MAX),
    ) {
        let (_, steps) = run(&ops, &Fake([1.0; 3]));
        prop_assert!(steps <= ops.len());
    }
}
