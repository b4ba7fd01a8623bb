//! The tests in parts that run side by side, and where the time goes.
//!
//! The one idea: most parts keep one processor busy, QEMU's translation of one hart. So there are as many threads as processors,
//! each of which takes the next part, keeps back what it prints, and shows it when the part has ended. Reports are in the order of
//! the list, whatever ended first.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use super::tally::Tally;
use crate::{progress, screen};

/// The most parts that run at once: each may have a machine of half a gigabyte.
const MOST: usize = 4;

/// Parts that take less are not listed.
const WORTH_A_LINE: Duration = Duration::from_secs(2);

/// What a part does: it adds to the tally.
type Run<'a> = dyn FnOnce(&mut Tally) -> anyhow::Result<()> + Send + 'a;

/// Some of the tests.
pub struct Part<'a> {
    name: String,
    run: Box<Run<'a>>,
}

impl<'a> Part<'a> {
    /// A part that calls `run`.
    pub fn new(
        name: impl Into<String>,
        run: impl FnOnce(&mut Tally) -> anyhow::Result<()> + Send + 'a,
    ) -> Self {
        Self {
            name: name.into(),
            run: Box::new(run),
        }
    }
}

/// What became of a part.
struct Done {
    name: String,
    tally: anyhow::Result<Tally>,
    time: Duration,
}

/// Runs the parts, the first ones first, and adds what became of them to `total` in their order. The first error ends the rest.
pub fn run(parts: Vec<Part>, total: &mut Tally) -> anyhow::Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut all = on_threads(parts, threads.min(MOST));
    show_times(
        &mut all
            .iter()
            .map(|done| (&*done.name, done.time))
            .collect::<Vec<_>>(),
    );
    for done in all.drain(..) {
        total.merge(done.tally?);
    }
    Ok(())
}

fn on_threads(parts: Vec<Part>, threads: usize) -> Vec<Done> {
    let waiting = Mutex::new(parts.into_iter().enumerate().collect::<VecDeque<_>>());
    let ended = Mutex::new(Vec::new());
    let work = || {
        loop {
            // The lock is not held while a part runs.
            let next = waiting.lock().expect("no thread panicked").pop_front();
            let Some((index, part)) = next else { return };
            let (done, text) = if threads > 1 {
                screen::keep_back(|| one(part))
            } else {
                (one(part), Vec::new())
            };
            let mut ended = ended.lock().expect("no thread panicked");
            screen::release(&text);
            if done.tally.is_err() {
                waiting.lock().expect("no thread panicked").clear();
            }
            ended.push((index, done));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            // Children end with the thread that started them; these threads wait for theirs.
            scope.spawn(work);
        }
    });
    let mut ended = ended.into_inner().expect("no thread panicked");
    ended.sort_by_key(|&(index, _)| index);
    ended.into_iter().map(|(_, done)| done).collect()
}

fn one(part: Part) -> Done {
    progress::say(&format!("testing: {}", part.name));
    let start = Instant::now();
    let mut tally = Tally::default();
    let result = (part.run)(&mut tally);
    Done {
        tally: result
            .map(|()| tally)
            .map_err(|error| anyhow!("{}: {error:#}", part.name)),
        name: part.name,
        time: start.elapsed(),
    }
}

/// Says which parts took how long, the longest first.
fn show_times(times: &mut [(&str, Duration)]) {
    times.sort_by_key(|&(_, time)| std::cmp::Reverse(time));
    for (name, time) in times.iter().filter(|(_, time)| *time >= WORTH_A_LINE) {
        progress::say(&format!("{:>5} s: {name}", time.as_secs()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &'static str, milliseconds: u64) -> Part<'static> {
        Part::new(name, move |tally| {
            std::thread::sleep(Duration::from_millis(milliseconds));
            tally.add(name, Tally::default());
            Ok(())
        })
    }

    fn names(all: &[Done]) -> Vec<&str> {
        all.iter().map(|done| &*done.name).collect()
    }

    #[test]
    fn reports_are_in_the_order_of_the_list_whatever_ended_first() {
        for threads in 1..4 {
            let (all, _) = screen::keep_back(|| {
                on_threads(vec![part("a", 30), part("b", 1), part("c", 10)], threads)
            });
            assert_eq!(names(&all), ["a", "b", "c"]);
            for done in &all {
                let tally = done.tally.as_ref().unwrap();
                assert_eq!(tally.groups[0].name, done.name);
            }
        }
    }

    #[test]
    fn an_error_names_its_part_and_ends_the_rest() {
        let failing = Part::new("b", |_: &mut Tally| anyhow::bail!("why"));
        let (all, _) =
            screen::keep_back(|| on_threads(vec![part("a", 1), failing, part("c", 1)], 1));
        assert_eq!(names(&all), ["a", "b"]);
        let error = all[1].tally.as_ref().unwrap_err().to_string();
        assert_eq!(error, "b: why");
    }
}
