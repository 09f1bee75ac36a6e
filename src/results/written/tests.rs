//! Files as their writers write them, and as they may be after a crash.

use std::io::Cursor;

use super::crc::{ieee, masked_castagnoli};
use super::*;

/// A small source of numbers that is the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let (mut head, mut length) = (vec![number << 3 | 2], bytes.len());
    while length > 127 {
        head.push(u8::try_from(length % 128).unwrap() | 128);
        length /= 128;
    }
    head.push(u8::try_from(length).unwrap());
    [&head, bytes].concat()
}

fn event(step: u8, tag: &str, value: f32) -> Vec<u8> {
    let simple = [&field(1, tag.as_bytes())[..], &[2 << 3 | 5], &value.to_le_bytes()].concat();
    let head = [&[1 << 3 | 1][..], &1e9_f64.to_le_bytes(), &[2 << 3, step]].concat();
    [head, field(5, &field(1, &simple))].concat()
}

fn events(n: u8) -> Vec<u8> {
    (0..n).flat_map(|step| event_record(&event(step, "loss", f32::from(step) / 4.0))).collect()
}

fn event_record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let sums = [&length[..], data].map(|part| masked_castagnoli(part).to_le_bytes());
    [&length[..], &sums[0], data, &sums[1]].concat()
}

fn wandb_file(n: u8) -> Vec<u8> {
    let mut file = b":W&B\xe1\xbe\0".to_vec();
    for step in 0..n {
        file.extend(fragment(1, &history(step, &format!("{}", f64::from(step) / 4.0))));
    }
    file
}

fn history(step: u8, loss: &str) -> Vec<u8> {
    let item = |name: &str, value: &str| {
        // Field 16 needs two bytes.
        let value = [&[0x82, 0x01, u8::try_from(value.len()).unwrap()], value.as_bytes()].concat();
        field(1, &[field(1, name.as_bytes()), value].concat())
    };
    let items = [item("loss", loss), item("_timestamp", "1e9")];
    field(2, &[items.concat(), field(2, &[1 << 3, step])].concat())
}

fn fragment(kind: u8, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap().to_le_bytes();
    [&ieee(kind, data).to_le_bytes()[..], &length, &[kind], data].concat()
}

type Reader = fn(&[u8], Take<'_>) -> io::Result<LeftOut>;

fn read(reader: Reader, bytes: &[u8]) -> (Vec<WrittenValue>, Option<String>) {
    let mut values = Vec::new();
    let damage = reader(bytes, &mut |value| {
        values.push(value);
        Ok(())
    });
    (values, damage.unwrap().into_iter().reduce(|all, one| format!("{all}; {one}")))
}

/// Makes a file of so many values.
type Writer = fn(u8) -> Vec<u8>;

const READERS: [(Reader, Writer); 2] = [
    (|bytes, take| tensorboard::each_scalar(&mut Cursor::new(bytes), take), events),
    (|bytes, take| wandb::each_record(&mut Cursor::new(bytes), take), wandb_file),
];

#[test]
fn what_is_torn_or_damaged_is_never_told() {
    for (reader, file) in READERS {
        let whole = file(20);
        let (values, damage) = read(reader, &whole);
        assert_eq!((values.len(), &damage), (20, &None));
        assert_eq!(values[3].value, Some(0.75));
        assert_eq!((values[3].step, values[3].time), (Some(3), Some(1e9)));
        for end in 0..whole.len() {
            let (torn, damage) = read(reader, &whole[..end]);
            assert!(values.starts_with(&torn) && damage.is_none(), "{end}: {damage:?}");
        }
        let mut numbers = Numbers(7);
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            for _ in 0..=numbers.below(3) {
                let place = numbers.below(bytes.len());
                bytes[place] = u8::try_from(numbers.below(256)).unwrap();
            }
            let (found, damage) = read(reader, &bytes);
            assert!(found.iter().all(|value| values.contains(value)), "{damage:?}");
            assert!(
                found.len() == values.len()
                    || damage.is_some()
                    || bytes.len() < whole.len()
                    || is_torn(&values, &found),
                "{} {damage:?}",
                found.len()
            );
        }
    }
}

/// A length that was made longer looks like a record that is being written.
fn is_torn(values: &[WrittenValue], found: &[WrittenValue]) -> bool {
    values.starts_with(found)
}

/// A node that lost its power leaves zeros where its last writes were; the writer's next ones may come after them.
#[test]
fn a_hole_in_a_file_is_told_and_an_end_of_zeros_is_none() {
    let (reader, file) = READERS[1];
    let whole = file(60);
    let all = read(reader, &whole).0;
    let record = (whole.len() - 7) / 60;
    let (from, to) = (7 + 20 * record, 7 + 30 * record);
    let mut hole = whole.clone();
    hole[from..to].fill(0);
    let (found, damage) = read(reader, &hole);
    assert_eq!(
        (found, damage.as_deref()),
        (all[..20].to_vec(), Some("is damaged: 1 part left out"))
    );
    hole[from..].fill(0);
    assert_eq!(read(reader, &hole), (all[..20].to_vec(), None));
    // A hole up to the end of a block, and a whole block after it.
    let mut blocks = whole.clone();
    blocks.resize(32 * 1024, 0);
    blocks.extend(&whole[7..]);
    let (found, damage) = read(reader, &blocks);
    assert_eq!((found.len(), damage.as_deref()), (120, Some("is damaged: 1 part left out")));
}

/// A record of which only a part is there.
#[test]
fn a_record_that_has_lost_a_part_is_told() {
    let (reader, file) = READERS[1];
    let whole = file(2);
    for kind in [2, 3, 4] {
        let bytes = [&whole[..7], &fragment(kind, b"x"), &whole[7..]].concat();
        let (found, damage) = read(reader, &bytes);
        assert_eq!(
            (found.len(), damage.as_deref()),
            (2, Some("is damaged: 1 part left out")),
            "{kind}"
        );
    }
    // At the end it is being written.
    assert_eq!(read(reader, &[&whole[..], &fragment(2, b"x")].concat()).1, None);
}

/// What is behind a large record is read. That it was left out is told where scalars may be in it.
#[test]
fn a_record_of_an_event_that_is_too_large_is_told_if_it_may_hold_scalars() {
    let (reader, file) = READERS[0];
    let small = field(1, &event(0, "x", 1.0));
    let image = field(1, &[field(1, b"image"), field(4, &vec![7; 2 << 20])].concat());
    let time = [&[1 << 3 | 1][..], &1e9_f64.to_le_bytes()].concat();
    let large =
        |number: u8, message: &[u8]| event_record(&[&time[..], &field(number, message)].concat());
    for (record, told) in [
        (large(4, &image), None),
        (large(5, &image), None),
        (
            large(5, &[&image[..], &small].concat()),
            Some("has 1 record of more than 1 MiB: left out"),
        ),
        (
            large(5, &[&small[..], &image].concat()),
            Some("has 1 record of more than 1 MiB: left out"),
        ),
    ] {
        let (found, left_out) = read(reader, &[file(2), record.clone(), file(3)].concat());
        assert_eq!((found.len(), left_out.as_deref()), (5, told));
        // Without its end it is being written.
        assert_eq!(read(reader, &record[..record.len() - 1]), (Vec::new(), None));
    }
}

#[test]
fn values_of_a_history_that_are_no_json_are_told_once_with_their_number() {
    let (reader, file) = READERS[1];
    let odd = |loss: &str| fragment(1, &history(9, loss));
    let one = [&file(2)[..], &odd("{nan")].concat();
    let told = Some("has 1 value that is no JSON: left out".to_owned());
    assert_eq!(read(reader, &one), (read(reader, &file(2)).0, told));
    let (found, told) = read(reader, &[&one[..], &odd(""), &odd("2")].concat());
    assert_eq!(
        (found.len(), told.as_deref()),
        (3, Some("has 2 values that are no JSON: left out"))
    );
}

#[test]
fn a_history_that_is_too_long_is_told_and_another_record_is_not() {
    let (reader, file) = READERS[1];
    for (number, told) in [(2, Some("has 1 record of more than 4 MiB: left out")), (7, None)] {
        let whole = file(1);
        let record = field(number, &vec![8; 5 << 20]);
        // A block has room for a fragment's head and data; the first one for the file's head too.
        let (first, rest) = record.split_at(32 * 1024 - 14);
        let middle = rest.chunks_exact(32 * 1024 - 7);
        let last = fragment(4, middle.remainder());
        let middle: Vec<Vec<u8>> = middle.map(|piece| fragment(3, piece)).collect();
        let bytes =
            [&whole[..7], &fragment(2, first), &middle.concat(), &last, &whole[7..]].concat();
        let (found, left_out) = read(reader, &bytes);
        assert_eq!((found.len(), left_out.as_deref()), (1, told));
    }
}

#[test]
fn random_messages_do_no_harm() {
    let mut numbers = Numbers(3);
    for _ in 0..20_000 {
        let length = numbers.below(60);
        let bytes: Vec<u8> =
            (0..length).map(|_| u8::try_from(numbers.below(256)).unwrap()).collect();
        for (reader, _) in READERS {
            drop(read(reader, &bytes));
        }
        let mut wrapped = b":W&B\xe1\xbe\0".to_vec();
        wrapped.extend(fragment(1, &bytes));
        drop(read(READERS[1].0, &wrapped));
        drop(lightning::each_cell(&mut Cursor::new(&bytes), &mut |_| Ok(())));
    }
}

#[test]
fn a_table_of_lightning_has_empty_cells() {
    let text = "epoch,step,train_loss,val_loss\r\n0,9,0.5,\r\n0,19,,nan\r\n0,x,1\r\n0,29,0.2,0.1";
    let mut told = Vec::new();
    let damage = lightning::each_cell(&mut Cursor::new(text), &mut |value| {
        told.push((value.metric, value.step, value.value));
        Ok(())
    });
    let expected = [("train_loss", Some(9), Some(0.5)), ("val_loss", Some(19), None)];
    assert_eq!(told, expected.map(|(name, step, value)| (name.to_owned(), step, value)));
    assert_eq!(damage.unwrap(), ["is damaged: 1 line left out"]);
    let foreign = "name,count\nx,1\n";
    assert_eq!(
        lightning::each_cell(&mut Cursor::new(foreign), &mut |_| panic!()).unwrap(),
        LeftOut::new()
    );
}
