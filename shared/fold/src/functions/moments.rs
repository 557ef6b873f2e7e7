//! `var`, `stddev`, `covar_…`, `corr` and `regr_…`, whose states merge without losing what they measure.
//!
//! DataFusion's keep means and deviations in doubles: where values are large beside their spread, the rounded means of two parts
//! differ by more than the spread, and the answer depends on where the parts were cut. Here both are kept in two doubles each
//! (106 bits). Rows are added up as deviations from the group's first row, and parts are merged by the formula of Chan, Golub and LeVeque ("Updating formulae and a pairwise algorithm for computing
//! sample variances", 1979).

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, UInt64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, UInt64Type};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, Signature,
};

use super::two::Two;

/// What is made of the moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Measure {
    VarSamp,
    VarPop,
    StddevSamp,
    StddevPop,
    CovarSamp,
    CovarPop,
    Corr,
    Slope,
    Intercept,
    Count,
    R2,
    AvgX,
    AvgY,
    Sxx,
    Syy,
    Sxy,
}

/// The functions, by the names of DataFusion's.
const MEASURES: [(&str, Measure); 16] = [
    ("var", Measure::VarSamp),
    ("var_pop", Measure::VarPop),
    ("stddev", Measure::StddevSamp),
    ("stddev_pop", Measure::StddevPop),
    ("covar_samp", Measure::CovarSamp),
    ("covar_pop", Measure::CovarPop),
    ("corr", Measure::Corr),
    ("regr_slope", Measure::Slope),
    ("regr_intercept", Measure::Intercept),
    ("regr_count", Measure::Count),
    ("regr_r2", Measure::R2),
    ("regr_avgx", Measure::AvgX),
    ("regr_avgy", Measure::AvgY),
    ("regr_sxx", Measure::Sxx),
    ("regr_syy", Measure::Syy),
    ("regr_sxy", Measure::Sxy),
];

/// Whether a function is one of these.
pub(super) fn is_moment(name: &str) -> bool {
    MEASURES.iter().any(|(known, _)| *known == name)
}

/// The functions in the place of the originals.
pub(super) fn all(originals: &HashMap<String, Arc<AggregateUDF>>) -> Vec<AggregateUDF> {
    let of = |(name, measure): &(&str, Measure)| {
        let original = Arc::clone(originals.get(*name)?);
        Some(AggregateUDF::from(Function { original, measure: *measure }))
    };
    MEASURES.iter().filter_map(of).collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    original: Arc<AggregateUDF>,
    measure: Measure,
}

impl Measure {
    /// How many columns are measured.
    fn columns(self) -> usize {
        match self {
            Measure::VarSamp | Measure::VarPop | Measure::StddevSamp | Measure::StddevPop => 1,
            _ => 2,
        }
    }

    fn value(self, moments: &Moments) -> Option<f64> {
        let (n, [y, x]) = (moments.count as f64, moments.variables);
        let (yy, xx, xy) = (y.squares(), x.squares(), moments.product());
        let (any, several) = (moments.count > 0, moments.count > 1);
        let varies = |squares: f64| squares != 0.0;
        match self {
            Measure::VarSamp => several.then(|| yy / (n - 1.0)),
            Measure::VarPop => any.then(|| yy / n),
            Measure::StddevSamp => several.then(|| (yy / (n - 1.0)).sqrt()),
            Measure::StddevPop => any.then(|| (yy / n).sqrt()),
            Measure::CovarSamp => several.then(|| xy / (n - 1.0)),
            Measure::CovarPop => any.then(|| xy / n),
            Measure::Corr => (any && varies(xx) && varies(yy)).then(|| (xy / xx.sqrt() / yy.sqrt()).clamp(-1.0, 1.0)),
            Measure::Slope => (any && varies(xx)).then(|| xy / xx),
            Measure::Intercept => (any && varies(xx)).then(|| y.mean() - x.mean() * (xy / xx)),
            Measure::Count => None,
            Measure::R2 if !any || !varies(xx) => None,
            Measure::R2 if !varies(yy) => Some(1.0),
            Measure::R2 => Some((xy / xx) * (xy / yy)),
            Measure::AvgX => any.then(|| x.mean()),
            Measure::AvgY => any.then(|| y.mean()),
            Measure::Sxx => any.then_some(xx),
            Measure::Syy => any.then_some(yy),
            Measure::Sxy => any.then_some(xy),
        }
    }
}

/// The mean of a column, and the sum of its squared deviations from it.
#[derive(Debug, Clone, Copy, Default)]
struct Variable {
    mean: Two,
    squares: Two,
    /// The sum of infinities and NaNs, which are zeros in the others.
    odd: f64,
}

impl Variable {
    fn mean(&self) -> f64 {
        if self.odd == 0.0 { self.mean.value() } else { self.odd }
    }

    fn squares(&self) -> f64 {
        if self.odd == 0.0 { self.squares.value() } else { f64::NAN }
    }
}

/// The moments of a group: of one column, or of two, the first of which is the dependent one.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    count: u64,
    variables: [Variable; 2],
    /// The sum of the products of both deviations.
    product: Two,
}

impl Moments {
    fn product(&self) -> f64 {
        let odd = self.variables.iter().any(|variable| variable.odd != 0.0);
        if odd { f64::NAN } else { self.product.value() }
    }

    fn add(&mut self, other: &Moments) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *other;
            return;
        }
        let (n, m) = (self.count as f64, other.count as f64);
        let total = n + m;
        let weight = Two::of(n).times(Two::of(m)).over(total);
        let mut deltas = [Two::default(); 2];
        for ((mine, theirs), delta) in self.variables.iter_mut().zip(&other.variables).zip(&mut deltas) {
            *delta = theirs.mean.minus(mine.mean);
            mine.mean = mine.mean.plus(delta.times(Two::of(m)).over(total));
            mine.squares = mine.squares.plus(theirs.squares).plus(delta.times(*delta).times(weight));
            mine.odd += theirs.odd;
        }
        self.product = self.product.plus(other.product).plus(deltas[0].times(deltas[1]).times(weight));
        self.count += other.count;
    }

    /// The state beside the count: of each column its mean, squares and what is odd; of two their product.
    fn state(&self, columns: usize) -> Vec<f64> {
        let mut state = vec![];
        for variable in &self.variables[..columns] {
            let [mean, squares] = [variable.mean, variable.squares].map(Two::parts);
            state.extend([mean[0], mean[1], squares[0], squares[1], variable.odd]);
        }
        if columns == 2 {
            state.extend(self.product.parts());
        }
        state
    }

    fn of_state(count: u64, state: &[f64]) -> Self {
        let mut moments = Self { count, ..Self::default() };
        for (variable, of) in moments.variables.iter_mut().zip(state.chunks_exact(5)) {
            *variable =
                Variable { mean: Two::of_parts(of[0], of[1]), squares: Two::of_parts(of[2], of[3]), odd: of[4] };
        }
        if let [high, low] = state[state.len() / 5 * 5..] {
            moments.product = Two::of_parts(high, low);
        }
        moments
    }
}

/// What a group's rows add up to, from its first row on: moments in the making, by additions alone. Deviations are from the first row's
/// values, one of which is 0. So the sum of squares is at most n times the squares around the mean, and 106 bits hold both.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    count: u64,
    from: [f64; 2],
    deviations: [Two; 2],
    squares: [Two; 2],
    product: Two,
    odd: [f64; 2],
}

impl Sums {
    /// Adds one row's values.
    fn take(&mut self, mut values: [f64; 2], columns: usize) {
        for (value, odd) in values.iter_mut().zip(&mut self.odd) {
            if !value.is_finite() {
                *odd += *value;
                *value = 0.0;
            }
        }
        if self.count == 0 {
            self.from = values;
        }
        self.count += 1;
        let mut of = [Two::default(); 2];
        for place in 0..columns {
            of[place] = Two::difference(values[place], self.from[place]);
            self.deviations[place] = self.deviations[place].plus_about(of[place]);
            self.squares[place] = self.squares[place].plus_about(of[place].times(of[place]));
        }
        if columns == 2 {
            self.product = self.product.plus_about(of[0].times(of[1]));
        }
    }

    fn moments(&self) -> Moments {
        if self.count == 0 {
            return Moments::default();
        }
        let count = self.count as f64;
        // From here to the mean.
        let shifts = self.deviations.map(|deviations| deviations.over(count));
        let around_the_mean = |sum: Two, a: usize, b: usize| match sum.value().is_finite() {
            true => sum.minus(self.deviations[a].times(shifts[b])),
            false => sum,
        };
        let variable = |place: usize| Variable {
            mean: Two::of(self.from[place]).plus(shifts[place]),
            squares: around_the_mean(self.squares[place], place, place),
            odd: self.odd[place],
        };
        Moments {
            count: self.count,
            variables: [variable(0), variable(1)],
            product: around_the_mean(self.product, 0, 1),
        }
    }
}

/// How many doubles a state has beside its count.
fn width(columns: usize) -> usize {
    if columns == 2 { 12 } else { 5 }
}

impl AggregateUDFImpl for Function {
    fn name(&self) -> &str {
        self.original.name()
    }

    fn aliases(&self) -> &[String] {
        self.original.aliases()
    }

    fn signature(&self) -> &Signature {
        self.original.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.original.return_type(types)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.original.coerce_types(types)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if args.is_distinct {
            return self.original.state_fields(args);
        }
        let name = args.name;
        let double = |i| Arc::new(Field::new(format!("{name}[{i}]"), DataType::Float64, true));
        let count = Arc::new(Field::new(format!("{name}[count]"), DataType::UInt64, true));
        Ok(std::iter::once(count).chain((0..width(self.measure.columns())).map(double)).collect())
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return self.original.accumulator(args);
        }
        Ok(Box::new(One { measure: self.measure, rows: Sums::default(), merged: Moments::default() }))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.original.create_sliding_accumulator(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups { measure: self.measure, rows: vec![], merged: vec![] }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.original.documentation()
    }
}

/// Calls `take` with the place and the values of each row that has them all.
fn each_pair(columns: usize, values: &[ArrayRef], mut take: impl FnMut(usize, [f64; 2])) -> Result<()> {
    let doubles: Vec<_> = values.iter().filter_map(|array| array.as_primitive_opt::<Float64Type>()).collect();
    match &doubles[..] {
        [y] if columns == 1 => {
            for row in (0..y.len()).filter(|row| y.is_valid(*row)) {
                take(row, [y.value(row), 0.0]);
            }
        }
        [y, x] if columns == 2 => {
            for row in (0..y.len()).filter(|row| y.is_valid(*row) && x.is_valid(*row)) {
                take(row, [y.value(row), x.value(row)]);
            }
        }
        _ => return internal_err!("{columns} columns of doubles are measured"),
    }
    Ok(())
}

/// Calls `take` with the place and the moments of each row of states.
fn each_state(columns: usize, states: &[ArrayRef], mut take: impl FnMut(usize, &Moments)) -> Result<()> {
    let Some((counts, doubles)) = states.split_first() else { return internal_err!("there is no state") };
    let Some(counts) = counts.as_primitive_opt::<UInt64Type>() else { return internal_err!("there is no count") };
    let doubles: Vec<_> = doubles.iter().filter_map(|array| array.as_primitive_opt::<Float64Type>()).collect();
    if doubles.len() != width(columns) {
        return internal_err!("a state has {} doubles, not {}", width(columns), doubles.len());
    }
    for row in (0..counts.len()).filter(|row| counts.is_valid(*row)) {
        let state: Vec<f64> = doubles.iter().map(|column| column.value(row)).collect();
        take(row, &Moments::of_state(counts.value(row), &state));
    }
    Ok(())
}

/// States as columns.
fn columns_of(columns: usize, moments: &[Moments]) -> Vec<ArrayRef> {
    let rows: Vec<Vec<f64>> = moments.iter().map(|moments| moments.state(columns)).collect();
    let counts: ArrayRef = Arc::new(UInt64Array::from_iter_values(moments.iter().map(|moments| moments.count)));
    let double = |i: usize| -> ArrayRef { Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row[i]))) };
    std::iter::once(counts).chain((0..width(columns)).map(double)).collect()
}

fn evaluated(measure: Measure, moments: &[Moments]) -> ArrayRef {
    match measure {
        Measure::Count => Arc::new(UInt64Array::from_iter_values(moments.iter().map(|moments| moments.count))),
        measure => Arc::new(moments.iter().map(|moments| measure.value(moments)).collect::<Float64Array>()),
    }
}

/// The moments of one group: of rows, and of states that were merged.
#[derive(Debug)]
struct One {
    measure: Measure,
    rows: Sums,
    merged: Moments,
}

impl One {
    fn moments(&self) -> Moments {
        let mut moments = self.merged;
        moments.add(&self.rows.moments());
        moments
    }
}

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let columns = self.measure.columns();
        each_pair(columns, values, |_, pair| self.rows.take(pair, columns))
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        each_state(self.measure.columns(), states, |_, moments| self.merged.add(moments))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let columns = columns_of(self.measure.columns(), &[self.moments()]);
        columns.iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&evaluated(self.measure, &[self.moments()]), 0)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// The moments of many groups: of rows, or of states. What is not used stays empty.
#[derive(Debug)]
struct Groups {
    measure: Measure,
    rows: Vec<Sums>,
    merged: Vec<Moments>,
}

impl Groups {
    fn taken(&mut self, emit: EmitTo) -> Vec<Moments> {
        fn part<T>(of: &mut Vec<T>, emit: EmitTo) -> Vec<T> {
            match emit {
                EmitTo::All => mem::take(of),
                EmitTo::First(n) => of.drain(..n.min(of.len())).collect(),
            }
        }
        let (rows, mut moments) = (part(&mut self.rows, emit), part(&mut self.merged, emit));
        moments.resize(moments.len().max(rows.len()), Moments::default());
        for (moments, rows) in moments.iter_mut().zip(&rows) {
            moments.add(&rows.moments());
        }
        moments
    }
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.rows.resize(total, Sums::default());
        let admitted = |row: usize| filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        let columns = self.measure.columns();
        each_pair(columns, values, |row, pair| {
            if admitted(row) {
                self.rows[groups[row]].take(pair, columns);
            }
        })
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.merged.resize(total, Moments::default());
        each_state(self.measure.columns(), states, |row, moments| self.merged[groups[row]].add(moments))
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        Ok(evaluated(self.measure, &self.taken(emit)))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(columns_of(self.measure.columns(), &self.taken(emit)))
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let (rows, columns) = (values.first().map_or(0, |column| column.len()), self.measure.columns());
        let mut sums = vec![Sums::default(); rows];
        each_pair(columns, values, |row, pair| {
            if filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row)) {
                sums[row].take(pair, columns);
            }
        })?;
        Ok(columns_of(columns, &sums.iter().map(Sums::moments).collect::<Vec<_>>()))
    }

    fn size(&self) -> usize {
        self.rows.capacity() * size_of::<Sums>() + self.merged.capacity() * size_of::<Moments>()
    }
}

#[cfg(test)]
mod tests {
    use super::{Measure, Moments, Sums};

    /// The moments of `pairs`, cut at each of `cuts` and merged.
    fn merged(pairs: &[[f64; 2]], cuts: &[usize]) -> Moments {
        let (mut whole, mut from) = (Moments::default(), 0);
        for to in cuts.iter().copied().chain([pairs.len()]) {
            let mut part = Sums::default();
            pairs[from..to].iter().for_each(|pair| part.take(*pair, 2));
            whole.add(&part.moments());
            from = to;
        }
        whole
    }

    #[test]
    fn large_values_measure_alike_wherever_they_are_cut() {
        // Deviations of -1, 0, 1 from 1e15, and of 1, 0, 1: covar_pop is 0, var_pop of the first is 2/3.
        for large in [0.0, 1e9, 1e15] {
            let pairs: Vec<[f64; 2]> =
                (0..300).map(|i| [large + f64::from(i % 3 - 1), large + f64::from((i % 3) / 2)]).collect();
            for cuts in [&[][..], &[1], &[100], &[7, 100, 101, 250]] {
                let moments = merged(&pairs, cuts);
                let near = |measure: Measure, value: f64| {
                    let found = measure.value(&moments).expect("a value");
                    assert!((found - value).abs() < 1e-12, "{measure:?} of {large} at {cuts:?}: {found}, not {value}");
                };
                near(Measure::VarPop, 2.0 / 3.0);
                near(Measure::CovarPop, 1.0 / 3.0);
                near(Measure::Slope, 1.5);
            }
        }
    }

    #[test]
    fn infinities_and_nan_measure_alike_wherever_they_stand() {
        for pairs in [[[f64::INFINITY, 1.0], [1.0, 2.0], [2.0, 4.0]], [[1.0, 2.0], [2.0, 4.0], [f64::INFINITY, 1.0]]] {
            for cuts in [&[][..], &[1], &[2], &[1, 2]] {
                let moments = merged(&pairs, cuts);
                assert!(Measure::VarPop.value(&moments).expect("a value").is_nan());
                assert_eq!(Measure::AvgY.value(&moments), Some(f64::INFINITY));
                assert!((Measure::AvgX.value(&moments).expect("a value") - 7.0 / 3.0).abs() < 1e-15);
                assert!(Measure::Corr.value(&moments).expect("a value").is_nan());
            }
        }
    }

    #[test]
    fn what_does_not_vary_has_no_correlation() {
        let pairs: Vec<[f64; 2]> = (0..10).map(|i| [0.1, f64::from(i)]).collect();
        for cuts in [&[][..], &[3], &[1, 2, 3]] {
            assert_eq!(Measure::Corr.value(&merged(&pairs, cuts)), None);
            assert_eq!(Measure::R2.value(&merged(&pairs, cuts)), Some(1.0));
        }
    }
}
