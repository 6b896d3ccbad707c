//! Random choices that a seed repeats.

/// A generator of the splitmix family.
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).unwrap_or(1);
        usize::try_from(self.roll() % end).unwrap_or(0)
    }

    pub(super) fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    pub(super) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// An integer that is often small or at an edge.
    pub(super) fn integer(&mut self) -> i64 {
        let value = self.roll();
        match self.below(6) {
            0 => 0,
            1 => (value % 200).cast_signed() - 100,
            2 => *self.pick(&[
                i64::MAX,
                i64::MIN,
                i64::from(i32::MAX),
                i64::from(i32::MIN),
                i64::from(u32::MAX),
                -1,
                1,
            ]),
            3 => (value % 1_000_000).cast_signed(),
            _ => value.cast_signed() >> self.below(60),
        }
    }

    pub(super) fn double(&mut self) -> f64 {
        let any = f64::from_bits(self.roll());
        match self.below(5) {
            0 => 0.0,
            1 => *self.pick(&[
                f64::NAN,
                f64::INFINITY,
                f64::NEG_INFINITY,
                1e300,
                5e-324,
                0.1,
                1e15,
                1e16,
                -2.5,
            ]),
            2 if any.is_finite() => any,
            #[expect(clippy::cast_precision_loss, reason = "any number will do")]
            _ => self.integer() as f64 / 100.0,
        }
    }

    /// A text that is often short, sometimes odd.
    pub(super) fn text(&mut self) -> String {
        const ODD: [char; 14] = [
            '"',
            '\\',
            '/',
            '\n',
            '\u{0}',
            '\u{1f}',
            '\u{7f}',
            'é',
            '語',
            '\u{1F600}',
            '\u{2028}',
            '<',
            ' ',
            '_',
        ];
        let size = if self.one_in(10) {
            self.below(200)
        } else {
            self.below(24)
        };
        let plain = !self.one_in(4);
        (0..size)
            .map(|_| {
                if plain || !self.one_in(4) {
                    char::from(b'a' + u8::try_from(self.below(26)).unwrap_or(0))
                } else {
                    *self.pick(&ODD)
                }
            })
            .collect()
    }
}
