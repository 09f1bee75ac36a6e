//! The two checksums of 32 bits that these files use.

/// The reversed polynomials: of Castagnoli (TensorBoard), and of IEEE 802.3 (W&B).
const CASTAGNOLI: [u32; 256] = table(0x82f6_3b78);
const IEEE: [u32; 256] = table(0xedb8_8320);

const fn table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "less than 256")]
        let mut value = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ polynomial } else { value >> 1 };
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
}

fn crc(table: &[u32; 256], parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    !bytes.fold(!0, |crc, byte| table[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8))
}

/// As records of TensorFlow have it: masked, so that a checksum of checksums is none.
pub(super) fn masked_castagnoli(data: &[u8]) -> u32 {
    crc(&CASTAGNOLI, &[data]).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Of a kind of fragment and its data.
pub(super) fn ieee(kind: u8, data: &[u8]) -> u32 {
    crc(&IEEE, &[&[kind], data])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_sums() {
        assert_eq!(crc(&CASTAGNOLI, &[b"123456789"]), 0xe306_9283);
        assert_eq!(crc(&IEEE, &[b"1234", b"56789"]), 0xcbf4_3926);
    }
}
