//! `tumble(time, size)`: the start of the tumbling window that holds `time`; windows are aligned to 1970-01-01, as
//! `date_bin(size, time)` aligns them.

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use super::windows::DateBin;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Tumble {
    signature: Signature,
    date_bin: DateBin,
}

impl Tumble {
    pub(super) fn new() -> Self {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        let exact = TypeSignature::Exact(vec![time, DataType::Interval(IntervalUnit::MonthDayNano)]);
        Self { signature: Signature::new(exact, Volatility::Immutable), date_bin: DateBin::new() }
    }
}

impl ScalarUDFImpl for Tumble {
    fn name(&self) -> &str {
        "tumble"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        args.args.swap(0, 1);
        args.arg_fields.swap(0, 1);
        self.date_bin.invoke_with_args(args)
    }
}
