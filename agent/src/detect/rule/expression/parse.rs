//! Signs to a program: which sign binds what, and what is true or false and what is a number.
//!
//! Loosest first: `||`, `&&`, comparisons (one, not a chain), `+ -`, `* / %`, `- !` before one.
//! What has no reading in it is computed here, once.

use super::lex::{Sign, Token, wrong};
use super::program::{Of1, Of2, Op, Program, Source, run};
use super::windows::Fold;
use crate::limits::{
    EXPRESSION_DEPTH_MAX, EXPRESSION_METRICS_MAX, EXPRESSION_OPS_MAX, EXPRESSION_STACK_MAX,
    EXPRESSION_WINDOWS_MAX,
};
use tributary_protocol::ids::is_name;
use tributary_settings::nearest;

const FUNCTIONS_1: [(&str, Of1); 5] = [
    ("abs", Of1::Abs),
    ("sqrt", Of1::Sqrt),
    ("ln", Of1::Ln),
    ("exp", Of1::Exp),
    ("floor", Of1::Floor),
];
const FUNCTIONS_2: [(&str, Of2); 3] = [("pow", Of2::Pow), ("min", Of2::Min), ("max", Of2::Max)];
/// What functions are called elsewhere.
const ELSEWHERE: [(&str, &str); 9] = [
    ("avg", "mean"),
    ("average", "mean"),
    ("stddev", "std"),
    ("stdev", "std"),
    ("prev", "previous"),
    ("last", "previous"),
    ("delta", "x - previous(x)"),
    ("diff", "x - previous(x)"),
    ("log", "ln"),
];
/// Of a metric itself.
const OF_METRIC: [&str; 2] = ["previous", "age"];

const COMPARISONS: [(&str, Of2); 6] = [
    ("<", Of2::Less),
    ("<=", Of2::AtMost),
    (">", Of2::Greater),
    (">=", Of2::AtLeast),
    ("==", Of2::Equal),
    ("!=", Of2::Differs),
];
const SUMS: [(&str, Of2); 2] = [("+", Of2::Add), ("-", Of2::Subtract)];
const PRODUCTS: [(&str, Of2); 3] = [
    ("*", Of2::Multiply),
    ("/", Of2::Divide),
    ("%", Of2::Remainder),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Type {
    Number,
    Truth,
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Truth => "true or false",
        }
    }
}

/// A part that was read.
#[derive(Clone, Copy, Debug)]
struct Part {
    kind: Type,
    /// Where it stands.
    at: usize,
    /// Where its operations begin.
    from: usize,
    /// Whether a reading is in it.
    varies: bool,
}

struct Parser<'a> {
    tokens: &'a [Token],
    next: usize,
    depth: usize,
    /// Values on the stack.
    height: usize,
    program: Program,
}

/// Nothing to be asked: what is asked for is no number.
struct Nothing;

impl Source for Nothing {
    fn value(&self, _: u8) -> f64 {
        f64::NAN
    }
    fn previous(&self, _: u8) -> f64 {
        f64::NAN
    }
    fn age(&self, _: u8) -> f64 {
        f64::NAN
    }
    fn window(&self, _: u8, _: Fold) -> f64 {
        f64::NAN
    }
}

/// The program of these signs.
pub(super) fn program(tokens: &[Token]) -> Result<Program, String> {
    let mut parser = Parser {
        tokens,
        next: 0,
        depth: 0,
        height: 0,
        program: Program {
            ops: Vec::new(),
            metrics: Vec::new(),
            windows: Vec::new(),
        },
    };
    let whole = parser.either()?;
    let at = parser.at();
    match parser.sign() {
        Sign::End => {}
        Sign::Fixed(")") => return Err(wrong(at, "`)` without its `(`")),
        _ => return Err(wrong(at, parser.no_operator())),
    }
    parser.want(whole, Type::Truth)?;
    parser.may_vary(whole)?;
    Ok(parser.program)
}

impl Parser<'_> {
    fn sign(&self) -> &Sign {
        self.tokens
            .get(self.next)
            .map_or(&Sign::End, |token| &token.sign)
    }

    /// Why nothing can stand here but an operator or the end.
    fn no_operator(&self) -> String {
        let before = self
            .next
            .checked_sub(1)
            .and_then(|place| self.tokens.get(place));
        let named = |sign: Option<&Sign>, word: &str| match sign {
            Some(Sign::Name(name)) => name.eq_ignore_ascii_case(word),
            _ => false,
        };
        let before = before.map(|token| &token.sign);
        for word in ["and", "or", "not"] {
            let (there, here) = (before, Some(self.sign()));
            if named(if word == "not" { there } else { here }, word) {
                return format!("words are small here; did you mean `{word}`?");
            }
        }
        match self.sign() {
            Sign::Fixed(",") => "`,` stands between what a function is of; a fraction is written \
                                 with `.`"
                .into(),
            _ => "expected an operator, such as `&&`, or the end".into(),
        }
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(0, |token| token.at)
    }

    /// Goes on behind a sign, if it is there.
    fn take(&mut self, fixed: &str) -> bool {
        let is_there = matches!(self.sign(), Sign::Fixed(known) if *known == fixed);
        self.next += usize::from(is_there);
        is_there
    }

    fn expect(&mut self, fixed: &str, why: &str) -> Result<(), String> {
        match self.take(fixed) {
            true => Ok(()),
            false => Err(wrong(self.at(), format!("expected `{fixed}` {why}"))),
        }
    }

    fn want(&self, part: Part, kind: Type) -> Result<(), String> {
        if part.kind == kind {
            return Ok(());
        }
        let hint = match kind {
            Type::Truth => ": compare it with something, such as `!= 0`",
            Type::Number => ": a metric that is true or false is 1 or 0 here, as in `== 1`",
        };
        let (is, wants) = (part.kind.name(), kind.name());
        Err(wrong(
            part.at,
            format!("this is {is}; expected {wants}{hint}"),
        ))
    }

    /// Refuses what is always so, or never.
    fn may_vary(&self, part: Part) -> Result<(), String> {
        if part.varies {
            return Ok(());
        }
        let ops = self.program.ops.get(part.from..).unwrap_or_default();
        let always = run(ops, &Nothing).0.is_some_and(|value| value != 0.0);
        let always = if always { "always" } else { "never" };
        Err(wrong(
            part.at,
            format!("this is {always} true: no reading is in it"),
        ))
    }

    fn emit(&mut self, op: Op, at: usize) -> Result<(), String> {
        match op {
            Op::Number(_) | Op::Value(_) | Op::Previous(_) | Op::Age(_) | Op::Window(..) => {
                self.height += 1;
            }
            Op::Of2(_) | Op::UnlessThen(_) | Op::IfThen(_) => self.height -= 1,
            Op::Negate | Op::Not | Op::Of1(_) => {}
        }
        if self.height > EXPRESSION_STACK_MAX {
            return Err(too_deep(at));
        }
        if self.program.ops.len() == EXPRESSION_OPS_MAX {
            let most = format!("too long from here on: at most {EXPRESSION_OPS_MAX} operations");
            return Err(wrong(at, most));
        }
        self.program.ops.push(op);
        Ok(())
    }

    /// An operation on parts that begin with `first`; without a reading in them, what it gives.
    fn apply(&mut self, op: Op, first: Part, varies: bool, kind: Type) -> Result<Part, String> {
        self.emit(op, first.at)?;
        if !varies {
            let ops = self.program.ops.get(first.from..).unwrap_or_default();
            let (value, _) = run(ops, &Nothing);
            let value = value.ok_or_else(|| wrong(first.at, "this gives no number"))?;
            self.program.ops.truncate(first.from);
            self.program.ops.push(Op::Number(value));
        }
        Ok(Part {
            kind,
            varies,
            ..first
        })
    }

    fn either(&mut self) -> Result<Part, String> {
        let mut left = self.both()?;
        while self.take("||") {
            left = self.joined(left, Op::IfThen, Self::both)?;
        }
        Ok(left)
    }

    fn both(&mut self) -> Result<Part, String> {
        let mut left = self.comparison()?;
        while self.take("&&") {
            left = self.joined(left, Op::UnlessThen, Self::comparison)?;
        }
        Ok(left)
    }

    /// The right side of `&&` or `||`, which is passed where the left one decides.
    fn joined(
        &mut self,
        left: Part,
        jump: fn(u16) -> Op,
        read: fn(&mut Self) -> Result<Part, String>,
    ) -> Result<Part, String> {
        self.want(left, Type::Truth)?;
        self.may_vary(left)?;
        let place = self.program.ops.len();
        self.emit(jump(0), left.at)?;
        let right = read(self)?;
        self.want(right, Type::Truth)?;
        self.may_vary(right)?;
        let target = self.program.ops.len() as u16;
        if let Some(op) = self.program.ops.get_mut(place) {
            *op = jump(target);
        }
        Ok(left)
    }

    fn operator(&mut self, known: &[(&str, Of2)]) -> Option<Of2> {
        let found = known.iter().find(|(sign, _)| self.take(sign));
        found.map(|(_, of)| *of)
    }

    fn comparison(&mut self) -> Result<Part, String> {
        let left = self.sum()?;
        let Some(of) = self.operator(&COMPARISONS) else {
            return Ok(left);
        };
        let right = self.sum()?;
        for part in [left, right] {
            self.want(part, Type::Number)?;
        }
        let at = self.at();
        if self.operator(&COMPARISONS).is_some() {
            return Err(wrong(
                at,
                "comparisons are no chain: join two of them with `&&`",
            ));
        }
        self.apply(Op::Of2(of), left, left.varies || right.varies, Type::Truth)
    }

    fn sum(&mut self) -> Result<Part, String> {
        self.chain(&SUMS, Self::product)
    }

    fn product(&mut self) -> Result<Part, String> {
        self.chain(&PRODUCTS, Self::unary)
    }

    fn chain(
        &mut self,
        known: &[(&str, Of2)],
        read: fn(&mut Self) -> Result<Part, String>,
    ) -> Result<Part, String> {
        let mut left = read(self)?;
        while let Some(of) = self.operator(known) {
            let right = read(self)?;
            for part in [left, right] {
                self.want(part, Type::Number)?;
            }
            let varies = left.varies || right.varies;
            if matches!(of, Of2::Divide | Of2::Remainder)
                && self.program.ops.get(right.from..) == Some(&[Op::Number(0.0)])
            {
                return Err(wrong(right.at, "nothing can be divided by 0"));
            }
            left = self.apply(Op::Of2(of), left, varies, Type::Number)?;
        }
        Ok(left)
    }

    /// Reads what is one level deeper.
    fn deeper(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Part, String>,
    ) -> Result<Part, String> {
        if self.depth == EXPRESSION_DEPTH_MAX {
            return Err(too_deep(self.at()));
        }
        self.depth += 1;
        let part = read(self);
        self.depth -= 1;
        part
    }

    fn unary(&mut self) -> Result<Part, String> {
        let at = self.at();
        for (sign, op, kind) in [("-", Op::Negate, Type::Number), ("!", Op::Not, Type::Truth)] {
            if self.take(sign) {
                let part = self.deeper(Self::unary)?;
                self.want(part, kind)?;
                let part = Part { at, ..part };
                return self.apply(op, part, part.varies, kind);
            }
        }
        self.primary()
    }

    fn primary(&mut self) -> Result<Part, String> {
        let (at, from) = (self.at(), self.program.ops.len());
        let part = |kind, varies| Part {
            kind,
            at,
            from,
            varies,
        };
        let sign = self.sign().clone();
        self.next += 1;
        match sign {
            Sign::Number(number) => {
                self.emit(Op::Number(number), at)?;
                Ok(part(Type::Number, false))
            }
            Sign::Fixed(word @ ("true" | "false")) => {
                self.emit(Op::Number(f64::from(word == "true")), at)?;
                Ok(part(Type::Truth, false))
            }
            Sign::Fixed("(") => {
                let inner = self.deeper(Self::either)?;
                self.expect(")", "to close the bracket")?;
                Ok(Part { at, ..inner })
            }
            Sign::Name(name) if self.take("(") => self.deeper(|p| p.call(&name, at, from)),
            Sign::Name(name) | Sign::Quoted(name) => {
                let metric = self.metric(&name, at)?;
                self.emit(Op::Value(metric), at)?;
                Ok(part(Type::Number, true))
            }
            Sign::Span(_) => Err(wrong(
                at,
                "a span stands only in an aggregate: `mean(x, 60s)`",
            )),
            Sign::End => Err(wrong(at, "here it ends; expected a metric or a number")),
            Sign::Fixed(fixed) => {
                let what = format!("`{fixed}`; expected a metric or a number");
                Err(wrong(at, what))
            }
        }
    }

    /// A function, behind its bracket.
    fn call(&mut self, name: &str, at: usize, from: usize) -> Result<Part, String> {
        let part = Part {
            kind: Type::Number,
            at,
            from,
            varies: true,
        };
        let of_metric = OF_METRIC.contains(&name);
        let fold = Fold::NAMES.iter().find(|(known, _)| *known == name);
        let of1 = FUNCTIONS_1.iter().find(|(known, _)| *known == name);
        let of2 = FUNCTIONS_2.iter().find(|(known, _)| *known == name);
        let folds = fold.filter(|_| of2.is_none() || self.is_window());
        if of_metric || folds.is_some() {
            let metric = self.metric_argument(name)?;
            let op = match folds {
                Some((_, fold)) => Op::Window(self.window(metric, name)?, *fold),
                None if name == "age" => Op::Age(metric),
                None => Op::Previous(metric),
            };
            self.expect(")", &format!("behind what `{name}` is of"))?;
            self.emit(op, at)?;
            return Ok(part);
        }
        let op = match (of1, of2) {
            (Some((_, of)), _) => Op::Of1(*of),
            (_, Some((_, of))) => Op::Of2(*of),
            (None, None) => return Err(wrong(at, unknown(name))),
        };
        let first = self.either()?;
        self.want(first, Type::Number)?;
        let mut varies = first.varies;
        if matches!(op, Op::Of2(_)) {
            self.expect(",", &format!("and a second number: `{name}` is of two"))?;
            let second = self.either()?;
            self.want(second, Type::Number)?;
            varies |= second.varies;
        }
        self.expect(")", &format!("behind what `{name}` is of"))?;
        self.apply(op, Part { varies, ..part }, varies, Type::Number)
    }

    /// Whether a metric and a span follow.
    fn is_window(&self) -> bool {
        let behind = self.tokens.get(self.next..).unwrap_or_default();
        let mut signs = behind.iter().map(|token| &token.sign);
        matches!(
            (signs.next(), signs.next(), signs.next()),
            (
                Some(Sign::Name(_) | Sign::Quoted(_)),
                Some(Sign::Fixed(",")),
                Some(Sign::Span(_))
            )
        )
    }

    fn metric_argument(&mut self, function: &str) -> Result<u8, String> {
        let at = self.at();
        let (Sign::Name(name) | Sign::Quoted(name)) = self.sign().clone() else {
            return Err(wrong(
                at,
                format!("expected a metric: `{function}` is of one"),
            ));
        };
        self.next += 1;
        self.metric(&name, at)
    }

    fn metric(&mut self, name: &str, at: usize) -> Result<u8, String> {
        if !is_name(name) || name.contains('*') {
            let what = "no metric: expected 1 to 256 bytes without control characters and `*`";
            return Err(wrong(at, what));
        }
        let metrics = &mut self.program.metrics;
        let known = metrics.iter().position(|known| **known == *name);
        let place = known.unwrap_or(metrics.len());
        if known.is_none() {
            if metrics.len() == EXPRESSION_METRICS_MAX {
                return Err(wrong(
                    at,
                    format!("more than {EXPRESSION_METRICS_MAX} metrics"),
                ));
            }
            metrics.push(name.into());
        }
        Ok(place as u8)
    }

    /// The window of a metric whose span follows.
    fn window(&mut self, metric: u8, function: &str) -> Result<u8, String> {
        self.expect(",", &format!("and a span, such as `{function}(x, 60s)`"))?;
        let at = self.at();
        let Sign::Span(span) = *self.sign() else {
            return Err(wrong(
                at,
                "expected a span: a number with `ms`, `s`, `m` or `h`",
            ));
        };
        self.next += 1;
        let windows = &mut self.program.windows;
        let known = windows.iter().position(|known| *known == (metric, span));
        let place = known.unwrap_or(windows.len());
        if known.is_none() {
            if windows.len() == EXPRESSION_WINDOWS_MAX {
                return Err(wrong(
                    at,
                    format!("more than {EXPRESSION_WINDOWS_MAX} windows"),
                ));
            }
            windows.push((metric, span));
        }
        Ok(place as u8)
    }
}

fn too_deep(at: usize) -> String {
    wrong(
        at,
        format!("too deep: at most {EXPRESSION_DEPTH_MAX} brackets within each other"),
    )
}

fn unknown(name: &str) -> String {
    let known = FUNCTIONS_1.iter().map(|(name, _)| *name);
    let known = known.chain(FUNCTIONS_2.iter().map(|(name, _)| *name));
    let known = known
        .chain(Fold::NAMES.iter().map(|(name, _)| *name))
        .chain(OF_METRIC);
    let mut known: Vec<&str> = known.collect();
    if let Some((_, meant)) = ELSEWHERE.iter().find(|(theirs, _)| *theirs == name) {
        return format!("no function is called `{name}`; did you mean `{meant}`?");
    }
    match nearest(name, &known) {
        Some(near) => format!("no function is called `{name}`; did you mean `{near}`?"),
        None => {
            known.sort_unstable();
            known.dedup();
            format!(
                "no function is called `{name}`; known are {}",
                known.join(", ")
            )
        }
    }
}
