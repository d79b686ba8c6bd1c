//! Bars in an SVG file.

use std::fmt::Write as _;

#[derive(Debug)]
pub(crate) struct Bar {
    /// Those of one group stand together.
    pub(crate) group: String,
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    /// After the point.
    pub(crate) digits: usize,
}

#[derive(Debug)]
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) bars: Vec<Bar>,
}

const WIDTH: f64 = 760.0;
/// Where bars begin; the names are before them.
const LEFT: f64 = 250.0;
/// What the longest bar has, with its number behind it.
const LONGEST: f64 = WIDTH - LEFT - 80.0;
const ROW: f64 = 20.0;
const GAP: f64 = 8.0;
const TITLE: f64 = 34.0;
const COLOURS: [(&str, &str); 5] = [
    ("oxdp", "#c2410c"),
    ("from C", "#fb923c"),
    ("C libxdp", "#475569"),
    ("xsk-rs", "#94a3b8"),
    ("the kernel", "#cbd5e1"),
];

/// The whole file.
pub(crate) fn draw(panels: &[Panel], caption: &str) -> String {
    let (mut body, mut y) = (String::new(), 8.0);
    for panel in panels.iter().filter(|panel| !panel.bars.is_empty()) {
        y = draw_panel(&mut body, panel, y);
    }
    y += 26.0;
    text(&mut body, 12.0, y - 8.0, "c", caption);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" width=\"{WIDTH}\" height=\"{y}\" \
         font-family=\"sans-serif\" font-size=\"13\" role=\"img\">\n\
         <style>.t{{font-weight:bold;font-size:14px}}.g{{fill:#334155}}.c{{fill:#64748b;font-size:11px}}</style>\n\
         <rect width=\"{WIDTH}\" height=\"{y}\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

/// From `y` down; where it ends.
fn draw_panel(body: &mut String, panel: &Panel, mut y: f64) -> f64 {
    y += TITLE;
    text(body, 12.0, y - 12.0, "t", panel.title);
    let most = panel.bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    let mut group = "";
    for bar in &panel.bars {
        if bar.group != group {
            y += if group.is_empty() { 0.0 } else { GAP };
            group = &bar.group;
            text(body, 12.0, y + 14.0, "g", group);
        }
        draw_bar(body, bar, bar.value / most * LONGEST, y);
        y += ROW;
    }
    y
}

fn draw_bar(body: &mut String, bar: &Bar, length: f64, y: f64) {
    let colour = COLOURS.iter().find(|(name, _)| *name == bar.name).map_or("#000", |(_, c)| c);
    text(body, LEFT - 80.0, y + 14.0, "n", bar.name);
    // Writing to a String cannot fail.
    let _ = writeln!(
        body,
        "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
        y + 2.0,
        ROW - 4.0
    );
    let number = format!("{:.*}", bar.digits, bar.value);
    text(body, LEFT + length + 6.0, y + 14.0, "n", &number);
}

fn text(body: &mut String, x: f64, y: f64, class: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(body, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{words}</text>");
}
