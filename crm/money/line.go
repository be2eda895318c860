package money

import (
	"fmt"
	"math"
	"math/bits"
)

// Line is one line of a document.
type Line struct {
	Quantity  int64 // thousandths, not negative
	UnitPrice int64 // minor units for 1000 thousandths, not negative, without tax
	Discount  int64 // basis points
	Tax       int64 // basis points
}

// Amounts are the figures of a line or of a document, in minor units. Gross is the price before any discount, Net what is left
// of it, and Gross == Discount + Net.
type Amounts struct {
	Gross    int64
	Discount int64 // all discounts
	Net      int64
	Tax      int64
}

// Total returns Net + Tax. What [Line.Amounts] and [Add] return fits.
func (a Amounts) Total() int64 { return a.Net + a.Tax }

// plus adds the figures of a line.
func (a Amounts) plus(b Amounts) (Amounts, error) {
	var err error
	add := func(x, y int64) int64 {
		sum, e := Sum(x, y)
		if e != nil {
			err = e
		}
		return sum
	}
	c := Amounts{add(a.Gross, b.Gross), add(a.Discount, b.Discount), add(a.Net, b.Net), add(a.Tax, b.Tax)}
	add(c.Net, c.Tax)
	return c, err
}

// Amounts returns the figures of the line, or ErrRange or ErrOverflow. Net is rounded once from the exact product of quantity,
// price and what the discount leaves; Tax is that of the rounded Net.
func (l Line) Amounts() (Amounts, error) {
	if l.Quantity < 0 || l.UnitPrice < 0 || l.Discount < 0 || l.Discount > Basis || l.Tax < 0 || l.Tax > Basis {
		return Amounts{}, ErrRange
	}
	hi, lo := bits.Mul64(uint64(l.Quantity), uint64(l.UnitPrice))
	gross, err := divide(hi, lo, Unit)
	if err != nil || gross > math.MaxInt64 {
		return Amounts{}, ErrOverflow
	}
	// The product is below 2^63 * 1000, so it keeps room for four more decimal digits.
	over, lo := bits.Mul64(lo, uint64(Basis-l.Discount))
	net, err := divide(hi*uint64(Basis-l.Discount)+over, lo, Unit*Basis)
	if err != nil {
		return Amounts{}, err
	}
	return figures(int64(gross), int64(net), l.Tax)
}

// figures computes the tax on net.
func figures(gross, net, points int64) (Amounts, error) {
	tax, err := Share(net, points)
	if err != nil {
		return Amounts{}, err
	}
	if _, err := Sum(net, tax); err != nil {
		return Amounts{}, err
	}
	return Amounts{Gross: gross, Discount: gross - net, Net: net, Tax: tax}, nil
}

// LineError says which line has no figures.
type LineError struct {
	Index int
	Err   error // ErrRange or ErrOverflow
}

// Error names the line by its place.
func (e *LineError) Error() string { return fmt.Sprintf("money: line %d: %v", e.Index, e.Err) }

// Unwrap returns the reason.
func (e *LineError) Unwrap() error { return e.Err }

// Add returns the figures of each line and of the document, after a discount on the whole of so many basis points. The discount
// is rounded once and distributed over the lines by what they cost. Errors are a *LineError, ErrRange for
// the discount, or ErrOverflow for the sum.
func Add(lines []Line, discount int64) (each []Amounts, sum Amounts, err error) {
	each = make([]Amounts, len(lines))
	nets := make([]int64, len(lines))
	var net int64
	for i, l := range lines {
		if each[i], err = l.Amounts(); err != nil {
			return nil, Amounts{}, &LineError{i, err}
		}
		nets[i] = each[i].Net
		if net, err = Sum(net, nets[i]); err != nil {
			return nil, Amounts{}, err
		}
	}
	off, err := Share(net, discount)
	if err != nil {
		return nil, Amounts{}, err
	}
	if off > 0 {
		parts, err := Split(off, nets...)
		if err != nil {
			return nil, Amounts{}, err
		}
		for i := range each {
			if each[i], err = figures(each[i].Gross, nets[i]-parts[i], lines[i].Tax); err != nil {
				return nil, Amounts{}, &LineError{i, err}
			}
		}
	}
	for _, a := range each {
		if sum, err = sum.plus(a); err != nil {
			return nil, Amounts{}, err
		}
	}
	return each, sum, nil
}
