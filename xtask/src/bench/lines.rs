//! What the bench program prints: `bench OPERATION PATH SIZE SHAPE VALUE CALLS` a line, between `bench: MEASURE` and
//! `bench: N lines`.

use super::Measure;

/// What was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// What is done.
    pub operation: String,
    /// By which way.
    pub path: String,
    /// To how many bytes, or among how many slots.
    pub size: usize,
    /// How the addresses lie.
    pub shape: String,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// Of what.
    pub key: Key,
    /// Instructions or ticks for one call.
    pub value: f64,
}

/// All lines of one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measurements(pub Vec<Measurement>);

impl Measurements {
    /// The value for one call.
    pub fn get(&self, operation: &str, path: &str, size: usize, shape: &str) -> Option<f64> {
        let found = self.0.iter().find(|Measurement { key, .. }| {
            key.operation == operation && key.path == path && key.size == size && key.shape == shape
        });
        found.map(|it| it.value)
    }
}

/// Reads the lines of one run.
pub struct Reader {
    measure: Measure,
    begun: bool,
    complete: bool,
    found: Measurements,
}

impl Reader {
    /// Of a run that has to say that it counts `measure`.
    pub fn new(measure: Measure) -> Self {
        Self {
            measure,
            begun: false,
            complete: false,
            found: Measurements::default(),
        }
    }

    /// The next line of the console.
    pub fn line(&mut self, line: &str) {
        let measure = match self.measure {
            Measure::Instructions => "instructions",
            Measure::Ticks => "ticks",
            Measure::Cycles => "cycles",
        };
        if let Some(measurement) = line.strip_prefix("bench ").and_then(parse) {
            self.found.0.push(measurement);
        } else if let Some(text) = line.strip_prefix("bench: ") {
            self.begun |= text == measure;
            self.complete |= text == format!("{} lines", self.found.0.len());
        }
    }

    /// The measurements, if the run said what it counts and that these are all.
    pub fn finish(self) -> Option<Measurements> {
        (self.begun && self.complete).then_some(self.found)
    }
}

fn parse(text: &str) -> Option<Measurement> {
    let mut words = text.split_whitespace();
    let mut next = || words.next();
    let key = Key {
        operation: next()?.into(),
        path: next()?.into(),
        size: next()?.parse().ok()?,
        shape: next()?.into(),
    };
    let (value, calls): (f64, f64) = (next()?.parse().ok()?, next()?.parse().ok()?);
    (calls > 0.0 && words.next().is_none()).then(|| Measurement {
        key,
        value: value / calls,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "OpenSBI\nbench: instructions\nbench read limit 8 aligned 23 1\n\
        bench lookup-random gpa-direct 64 aligned 512 256\nbench: 2 lines";

    fn read(text: &str, measure: Measure) -> Option<Measurements> {
        let mut reader = Reader::new(measure);
        text.lines().for_each(|line| reader.line(line));
        reader.finish()
    }

    #[test]
    fn a_value_is_for_one_call() {
        let found = read(GOOD, Measure::Instructions).unwrap();
        assert_eq!(found.get("read", "limit", 8, "aligned"), Some(23.0));
        let random = found.get("lookup-random", "gpa-direct", 64, "aligned");
        assert_eq!(random, Some(2.0));
    }

    #[test]
    fn a_run_that_lost_a_line_or_counted_something_else_is_none() {
        let lost = GOOD.replace("bench read limit 8 aligned 23 1\n", "");
        let broken = GOOD.replace("23 1", "23 0");
        for (text, measure) in [
            (GOOD, Measure::Ticks),
            (&lost, Measure::Instructions),
            (&broken, Measure::Instructions),
            ("", Measure::Instructions),
        ] {
            assert_eq!(read(text, measure), None, "{text}");
        }
    }
}
