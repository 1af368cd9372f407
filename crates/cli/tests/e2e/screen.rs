//! A program on a real terminal, and what a person sees there.

use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use crate::site::SHIPWAY;

/// Gives a program a terminal of a size, passes on what it writes there, and does what it is told: `size 40 15`, `interrupt`. Last
/// it says how the program ended, and whether the terminal's settings are as they were.
const TERMINAL: &str = r#"
import fcntl, os, pty, select, struct, sys, termios
def size(columns, rows):
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", int(rows), int(columns), 0, 0))
ours, theirs = pty.openpty()
size(*sys.argv[1:3])
before = termios.tcgetattr(theirs)
child = os.fork()
if child == 0:
    os.login_tty(theirs) if hasattr(os, "login_tty") else (os.setsid(), fcntl.ioctl(theirs, termios.TIOCSCTTY, 0), [os.dup2(theirs, it) for it in range(3)])
    os.execv(sys.argv[3], sys.argv[3:])
ended = None
while True:
    ready, _, _ = select.select([ours, 0], [], [], 0.05)
    if 0 in ready:
        words = os.read(0, 4096).decode().split()
        if not words:
            os.kill(child, 9)
        elif words[0] == "size":
            size(*words[1:3])
        else:
            os.write(ours, b"\x03")
    if ours in ready:
        os.write(1, os.read(ours, 65536))
    elif ended is not None:
        break
    if ended is None:
        pid, status = os.waitpid(child, os.WNOHANG)
        ended = status if pid else None
same = termios.tcgetattr(theirs) == before
how = f"signal {os.WTERMSIG(ended)}" if os.WIFSIGNALED(ended) else f"code {os.WEXITSTATUS(ended)}"
print(how, "sane" if same else "changed", file=sys.stderr)
"#;

/// A command of shipway on a terminal.
pub struct OnTerminal {
    child: Child,
    orders: Option<ChildStdin>,
    screen: Arc<Mutex<Screen>>,
    reader: Option<JoinHandle<()>>,
}

impl OnTerminal {
    pub fn start(columns: usize, rows: usize, env: &[(&str, &str)], words: &[&str]) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", TERMINAL, &columns.to_string(), &rows.to_string()])
            .arg(SHIPWAY)
            .args(words)
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let screen = Arc::new(Mutex::new(Screen::new(columns, rows)));
        let (mut from, into) = (child.stdout.take().unwrap(), screen.clone());
        let reader = thread::spawn(move || {
            let mut bytes = [0; 8192];
            let mut rest = Vec::new();
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                rest.extend_from_slice(&bytes[..count]);
                into.lock().unwrap().take(&mut rest);
            }
        });
        Self {
            orders: child.stdin.take(),
            child,
            screen,
            reader: Some(reader),
        }
    }

    /// Another size, as when a window is dragged.
    pub fn resize(&mut self, columns: usize, rows: usize) {
        self.screen.lock().unwrap().resize(columns, rows);
        self.order(&format!("size {columns} {rows}"));
    }

    /// Ctrl-C.
    pub fn interrupt(&mut self) {
        self.order("interrupt");
    }

    fn order(&mut self, order: &str) {
        let orders = self.orders.as_mut().unwrap();
        orders.write_all(format!("{order}\n").as_bytes()).unwrap();
    }

    /// What is to be seen now.
    pub fn look<R>(&self, look: impl FnOnce(&mut Screen) -> R) -> R {
        look(&mut self.screen.lock().unwrap())
    }

    /// Waits for the program's end: `code 0 sane`, and the last of the screen.
    pub fn end(mut self) -> (String, Screen) {
        let mut how = String::new();
        let mut told = self.child.stderr.take().unwrap();
        told.read_to_string(&mut how).unwrap();
        self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        let screen = std::mem::take(&mut *self.screen.lock().unwrap());
        (how.trim().to_owned(), screen)
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        if thread::panicking() {
            let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
            println!("── what the terminal shows\n{}", screen.text().join("\n"));
        }
        // Without orders to come the program is ended.
        self.orders.take();
        let _ = self.child.wait();
    }
}

/// What a terminal shows that knows the sequences Shipway may use, and notices all others. Like most it folds lines anew when
/// its width changes.
#[derive(Clone, Debug, Default)]
pub struct Screen {
    columns: usize,
    rows: usize,
    lines: Vec<Line>,
    /// The first line that is still on the screen.
    top: usize,
    row: usize,
    column: usize,
    /// Whether colours or the like are on.
    pub inked: bool,
    /// Whether they ever were.
    pub was_inked: bool,
    /// How often something was longer than the terminal is wide.
    pub folded: usize,
    /// Sequences that are not known here.
    pub strange: Vec<String>,
    /// The screen after each piece that was to be shown as one, since the size changed.
    pub frames: Vec<Vec<String>>,
}

#[derive(Clone, Debug, Default)]
struct Line {
    letters: Vec<char>,
    /// Goes on in the next line, for want of room.
    goes_on: bool,
}

impl Line {
    fn text(&self) -> String {
        let text: String = self.letters.iter().collect();
        text.trim_end().to_owned()
    }
}

impl Screen {
    fn new(columns: usize, rows: usize) -> Self {
        Self {
            columns,
            rows,
            lines: vec![Line::default()],
            ..Self::default()
        }
    }

    fn resize(&mut self, columns: usize, rows: usize) {
        let mut lines: Vec<Line> = Vec::new();
        let (mut row, mut open) = (0, Vec::new());
        for (index, line) in std::mem::take(&mut self.lines).into_iter().enumerate() {
            open.extend(line.letters);
            if line.goes_on {
                continue;
            }
            if index >= self.row && row == 0 {
                row = lines.len();
            }
            let whole = std::mem::take(&mut open);
            let count = whole.len().div_ceil(columns).max(1);
            for part in 0..count {
                let end = whole.len().min((part + 1) * columns);
                lines.push(Line {
                    letters: whole[part * columns..end].to_vec(),
                    goes_on: part + 1 < count,
                });
            }
        }
        (self.columns, self.rows, self.lines, self.row) = (columns, rows, lines, row);
        self.top = (self.row + 1).saturating_sub(rows);
        self.frames.clear();
    }

    /// All lines, those that have left the screen at the top too.
    pub fn text(&self) -> Vec<String> {
        self.lines.iter().map(Line::text).collect()
    }

    fn seen(&self) -> Vec<String> {
        self.lines[self.top..].iter().map(Line::text).collect()
    }

    /// The column of the cursor.
    pub fn column(&self) -> usize {
        self.column
    }

    /// Takes in what is complete of these bytes.
    fn take(&mut self, bytes: &mut Vec<u8>) {
        let valid = match std::str::from_utf8(bytes) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let mut text = String::from_utf8_lossy(&bytes[..valid]).into_owned();
        // A sequence that has not come whole yet.
        if let Some(last) = text.rfind('\u{1b}')
            && !text[last + 1..].contains(|it: char| it.is_ascii_alphabetic())
        {
            text.truncate(last);
        }
        bytes.drain(..text.len());
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '\r' => self.column = 0,
                '\n' => self.down(),
                '\u{1b}' => {
                    let mut sequence = String::new();
                    for letter in letters.by_ref() {
                        sequence.push(letter);
                        if letter.is_ascii_alphabetic() {
                            break;
                        }
                    }
                    self.obey(&sequence);
                }
                letter => self.put(letter),
            }
        }
    }

    fn down(&mut self) {
        self.row += 1;
        if self.row == self.lines.len() {
            self.lines.push(Line::default());
        }
        self.top = self.top.max((self.row + 1).saturating_sub(self.rows));
    }

    fn put(&mut self, letter: char) {
        if self.column >= self.columns {
            self.folded += 1;
            self.lines[self.row].goes_on = true;
            self.column = 0;
            self.down();
        }
        let line = &mut self.lines[self.row].letters;
        if line.len() <= self.column {
            line.resize(self.column + 1, ' ');
        }
        line[self.column] = letter;
        self.column += 1;
    }

    fn obey(&mut self, sequence: &str) {
        match sequence {
            "[K" => self.clear_from_here(),
            "[J" => {
                self.lines.truncate(self.row + 1);
                self.clear_from_here();
            }
            "[?2026h" => {}
            "[?2026l" => self.frames.push(self.seen()),
            _ => match (sequence.strip_prefix('['), sequence.chars().last()) {
                (Some(rest), Some('A')) => {
                    let up: usize = rest.trim_end_matches('A').parse().unwrap_or(1);
                    self.row = self.row.saturating_sub(up).max(self.top);
                }
                (Some(rest), Some('m')) => {
                    self.inked = !matches!(rest, "0m" | "39m");
                    self.was_inked |= self.inked;
                }
                _ => self.strange.push(sequence.to_owned()),
            },
        }
    }

    fn clear_from_here(&mut self) {
        let line = &mut self.lines[self.row];
        line.letters.truncate(self.column);
        line.goes_on = false;
    }
}
