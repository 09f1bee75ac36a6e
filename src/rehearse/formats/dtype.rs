//! How the numbers of an array are stored. Pure.

/// How the numbers of an array are stored, little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rehearse) enum DType {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Opaque,
}

impl DType {
    /// Bytes of one number.
    pub(in crate::rehearse) fn width(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Opaque => 1,
        }
    }

    /// Whether its numbers have a fraction, as weights do.
    pub(in crate::rehearse) fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::Bf16)
    }

    /// NumPy's name without the byte order, such as `f4`. Complex numbers are two each.
    pub(super) fn numpy(name: &str) -> Self {
        match name {
            "f8" | "c16" => Self::F64,
            "f4" | "c8" => Self::F32,
            "f2" => Self::F16,
            "bfloat16" | "V2" => Self::Bf16,
            "i8" | "u8" | "m8" | "M8" => Self::I64,
            "i4" | "u4" => Self::I32,
            "i2" | "u2" => Self::I16,
            "i1" => Self::I8,
            "u1" | "b1" => Self::U8,
            _ => Self::Opaque,
        }
    }

    /// The class of a PyTorch storage, or the name of a PyTorch type.
    pub(super) fn torch(class: &str) -> Self {
        match class.rsplit('.').next().unwrap_or_default() {
            "DoubleStorage" | "ComplexDoubleStorage" | "float64" => Self::F64,
            "FloatStorage" | "ComplexFloatStorage" | "float32" => Self::F32,
            "HalfStorage" | "float16" => Self::F16,
            "BFloat16Storage" | "bfloat16" => Self::Bf16,
            "LongStorage" | "int64" | "uint64" => Self::I64,
            "IntStorage" | "int32" | "uint32" => Self::I32,
            "ShortStorage" | "int16" | "uint16" => Self::I16,
            "CharStorage" | "int8" => Self::I8,
            "ByteStorage" | "BoolStorage" | "uint8" | "bool" => Self::U8,
            _ => Self::Opaque,
        }
    }

    /// One number from exactly its bytes; none where they are no number.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a difference of so large integers is shown rounded"
    )]
    pub(in crate::rehearse) fn number(self, bytes: &[u8]) -> Option<f64> {
        Some(match self {
            Self::F64 => f64::from_le_bytes(bytes.try_into().ok()?),
            Self::F32 => f64::from(f32::from_le_bytes(bytes.try_into().ok()?)),
            Self::Bf16 => f64::from(f32::from_le_bytes([0, 0, *bytes.first()?, *bytes.get(1)?])),
            Self::F16 => half(u16::from_le_bytes(bytes.try_into().ok()?)),
            Self::I64 => i64::from_le_bytes(bytes.try_into().ok()?) as f64,
            Self::I32 => f64::from(i32::from_le_bytes(bytes.try_into().ok()?)),
            Self::I16 => f64::from(i16::from_le_bytes(bytes.try_into().ok()?)),
            Self::I8 => f64::from(i8::from_le_bytes(bytes.try_into().ok()?)),
            Self::U8 => f64::from(*bytes.first()?),
            Self::Opaque => return None,
        })
    }
}

/// IEEE 754 half precision.
fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
    }
}
