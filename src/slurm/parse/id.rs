//! The grammar of ids, and of the index lists inside them.

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while, take_while1};
use nom::character::complete::char;
use nom::combinator::{all_consuming, cut, map, map_opt, not, opt, value};
use nom::error::context;
use nom::multi::{many0, separated_list1};
use nom::sequence::{delimited, preceded, terminated};
use nom::{IResult, Parser};

use super::number::number as digits;
use super::{Expected, ParseError, Reading, inner};
use crate::slurm::id::{JobId, ShownId, Step, TaskSet, Tasks};
use crate::slurm::indices::{INDEX_LIMIT, IndexRange, IndexSet};

/// Reads the whole text with `parser`; anything left over is an error.
pub fn whole<'a, T>(
    parser: impl Parser<&'a [u8], Output = T, Error = Expected<'a>>,
    text: &'a [u8],
) -> Result<T, ParseError> {
    let read: IResult<_, _, _> = context("the end", all_consuming(parser)).parse(text);
    match read {
        Ok((_, value)) => Ok(value),
        Err(error) => Err(ParseError::new(text, inner(&error, text))),
    }
}

/// `7`.
#[inline]
pub fn job(input: &[u8]) -> Reading<'_, JobId> {
    let (rest, number) = context("a job id", digits).parse(input)?;
    Ok((rest, JobId(number)))
}

/// One array index.
#[inline]
fn index(input: &[u8]) -> Reading<'_, u32> {
    let index = map_opt(digits, |index| (index < INDEX_LIMIT).then_some(index));
    context("an array index", index).parse(input)
}

/// `5`, `5-20` or `0-98:7`.
fn range(input: &[u8]) -> Reading<'_, IndexRange> {
    let last = opt(preceded(char('-'), index));
    let step = opt(preceded(char(':'), digits));
    let range = map_opt((index, last, step), |(first, last, step)| {
        IndexRange::new(first, last.unwrap_or(first), step.unwrap_or(1))
    });
    context("a range of array indices", range).parse(input)
}

/// `1,10,20-30:2`.
pub fn index_set(input: &[u8]) -> Reading<'_, IndexSet> {
    map(separated_list1(char(','), range), IndexSet::from).parse(input)
}

/// `1,10,2...`: what stands right before the dots may be cut in the middle of a number, and is left out.
fn cut_list(input: &[u8]) -> Reading<'_, IndexSet> {
    let torn = take_while(|byte: u8| b"0123456789-:".contains(&byte));
    let certain = many0(terminated(range, char(',')));
    map(terminated(certain, (torn, tag("..."))), IndexSet::from).parse(input)
}

/// What stands inside the brackets of `7_[5-20%2]`.
pub fn task_set(input: &[u8]) -> Reading<'_, TaskSet> {
    let all = map(terminated(index_set, not(tag("..."))), |set| (set, false));
    let some = map(cut_list, |set| (set, true));
    let limit = opt(preceded(char('%'), cut(context("a task limit after `%`", digits))));
    map((alt((some, all)), limit), |((indices, cut_short), limit)| TaskSet {
        indices,
        limit,
        cut_short,
    })
    .parse(input)
}

fn tasks(input: &[u8]) -> Reading<'_, Tasks> {
    let close = context("`]`", char(']'));
    match input {
        [b'_', b'[', ..] => {
            let set = delimited(tag("_["), cut(task_set), cut(close));
            map(set, |set| Tasks::Set(Box::new(set))).parse(input)
        }
        [b'_', ..] => map(preceded(char('_'), cut(index)), Tasks::One).parse(input),
        [b'+', ..] => {
            let offset = context("a component after `+`", digits);
            map(preceded(char('+'), cut(offset)), Tasks::Component).parse(input)
        }
        [..] => Ok((input, Tasks::NotAnArray)),
    }
}

fn step(input: &[u8]) -> Reading<'_, Step> {
    let word = take_while1(|byte: u8| byte.is_ascii_alphanumeric() || b"_-+".contains(&byte));
    let step = alt((
        value(Step::Batch, all_consuming(tag("batch"))),
        value(Step::Extern, all_consuming(tag("extern"))),
        value(Step::Interactive, all_consuming(tag("interactive"))),
        map(all_consuming(digits), Step::Number),
        map(word, |word: &[u8]| Step::Other(String::from_utf8_lossy(word).into())),
    ));
    context("a step", step).parse(input)
}

/// `7_3`, as most ids are.
#[inline]
pub fn array_task(input: &[u8]) -> Reading<'_, (JobId, u32)> {
    let (rest, job) = job(input)?;
    let (rest, index) = preceded(char('_'), index).parse(rest)?;
    Ok((rest, (job, index)))
}

/// A whole id with its tasks and its step.
pub fn shown(input: &[u8]) -> Reading<'_, ShownId> {
    let (rest, job) = job(input)?;
    let (rest, tasks) = tasks(rest)?;
    let (rest, step) = match rest {
        [b'.', ..] => preceded(char('.'), cut(map(step, Some))).parse(rest)?,
        [..] => (rest, None),
    };
    Ok((rest, ShownId { job, tasks, step }))
}
