//! The chart: cost of a byte against the size of an aligned read, one line a path, both axes logarithmic.

use std::fmt::Write;

use super::lines::Measurements;

/// The paths that are drawn, and their colours.
const PATHS: [(&str, &str); 8] = [
    ("baseline-gva", "#b35806"),
    ("baseline-gpa", "#e08214"),
    ("gva-hook", "#542788"),
    ("gva-scoped", "#8073ac"),
    ("gva-walk", "#d6604d"),
    ("gpa-hlv-hook", "#1b7837"),
    ("gpa-direct", "#2166ac"),
    ("limit", "#000000"),
];

/// Size of one of the two panels, and the margin around it.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 320.0;
const MARGIN: f64 = 60.0;

/// Powers of two of the horizontal axis.
const SIZES: (f64, f64) = (0.0, 20.0);

/// The chart as an SVG file.
pub fn svg(qemu: &str, instructions: &Measurements, ticks: &Measurements) -> String {
    let (width, height) = (2.0 * (WIDTH + 2.0 * MARGIN) + 130.0, HEIGHT + 2.0 * MARGIN);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    panel(&mut text, MARGIN, "instructions a byte", instructions, 1.0);
    let title = format!("nanoseconds a byte, QEMU {qemu}");
    panel(&mut text, WIDTH + 3.0 * MARGIN, &title, ticks, 100.0);
    for (row, (path, colour)) in PATHS.iter().enumerate() {
        let (x, y) = (width - 130.0 - MARGIN / 2.0, MARGIN + 20.0 * row as f64);
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "<line x1=\"{x}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\" stroke=\"{colour}\" stroke-width=\"3\"/>\
             <text x=\"{}\" y=\"{}\">{path}</text>",
            x + 24.0,
            x + 30.0,
            y + 4.0
        );
    }
    text.push_str("</svg>\n");
    text
}

/// One panel with its left edge at `left`; each value is multiplied by `unit`.
fn panel(text: &mut String, left: f64, title: &str, of: &Measurements, unit: f64) {
    let points: Vec<(&str, f64, f64)> =
        of.0.iter()
            .filter(|it| it.key.operation == "read" && it.key.shape == "aligned" && it.value > 0.0)
            .map(|it| {
                let size = it.key.size as f64;
                (&*it.key.path, size.log2(), (it.value * unit / size).log10())
            })
            .collect();
    let low = points
        .iter()
        .map(|it| it.2)
        .fold(f64::INFINITY, f64::min)
        .floor();
    let high = points
        .iter()
        .map(|it| it.2)
        .fold(low + 1.0, f64::max)
        .ceil();
    let x = |size: f64| left + WIDTH * (size - SIZES.0) / (SIZES.1 - SIZES.0);
    let y = |value: f64| MARGIN + HEIGHT * (high - value) / (high - low);
    let _ = writeln!(
        text,
        "<text x=\"{left}\" y=\"{}\" font-size=\"14\">{title}</text>\
         <rect x=\"{left}\" y=\"{MARGIN}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#888\"/>",
        MARGIN - 16.0
    );
    let mut power = low;
    while power <= high {
        let _ = writeln!(
            text,
            "<line x1=\"{left}\" x2=\"{}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{2}\" y=\"{1:.1}\" text-anchor=\"end\">{3}</text>",
            left + WIDTH,
            y(power),
            left - 6.0,
            10f64.powf(power)
        );
        power += 1.0;
    }
    for size in [0, 4, 8, 12, 16, 20] {
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x(f64::from(size)),
            MARGIN + HEIGHT + 18.0,
            1u64 << size
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">bytes of an aligned read</text>",
        left + WIDTH / 2.0,
        MARGIN + HEIGHT + 38.0
    );
    for (path, colour) in PATHS {
        let line: Vec<_> = points
            .iter()
            .filter(|it| it.0 == path)
            .map(|it| format!("{:.1},{:.1}", x(it.1), y(it.2)))
            .collect();
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            line.join(" ")
        );
    }
}
