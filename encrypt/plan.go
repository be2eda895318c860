package encrypt

import (
	"errors"
	"fmt"
	"math"
)

// errLeak says that an index shows more than its tag admits.
var errLeak = errors.New("encrypt: an index shows more than its tag admits")

// Plan works out what the indexes of all fields show in a population of so many records. It fails, with
// all indexes, when one shows what its tag does not admit. A near-unique field, such as a phone number, says
// leaks=equality: its tokens repeat only where its values do. An n-gram index says leaks=fragments. Any
// other index must be cut (KIND:NORMALISER:BITS) within both published bounds:
//
//   - with L the bits of all cut indexes of the field together and R the records, the coincidences
//     R/2^L are at least 2 and below √R (CipherSweet, "Blind Index Planning");
//   - with N the bits of the index and X its values, √X < 2^N < X/2 (AWS Database Encryption SDK,
//     "Choosing a beacon length").
//
// The bounds assume values that are about equally frequent. A field whose values are not, such as a
// surname, still shows its most frequent ones.
func (c *codec) Plan(population int) ([]Index, error) {
	if population < 1 {
		return nil, errors.New("encrypt: a population of at least 1")
	}
	var all []Index
	var fault error
	for _, at := range c.sealed {
		p := &c.plans[at]
		sum := 0
		for i := range p.indexes {
			if p.indexes[i].Bits < 64 {
				sum += p.indexes[i].Bits
			}
		}
		for i := range p.indexes {
			x := &p.indexes[i]
			l := x.Index
			l.Field, l.Values = x.refs[0].field, c.values(p, x, population)
			l.Candidates = float64(population) / min(math.Pow(2, float64(x.Bits)), float64(l.Values))
			why := ""
			switch {
			case x.shape == ngrams:
				l.Shows, l.Values, l.Candidates = leaksFragments, 0, 0
				if p.Leaks != leaksFragments {
					why = "an n-gram index shows pairs of characters: say leaks=fragments"
				}
			case x.Bits == 64:
				l.Shows = leaksEquality
				switch {
				case p.Leaks == "":
					why = "a whole token shows which records share the value: say leaks=equality, or cut it"
				case x.shape != whole || l.Values < population/2:
					why = "values that repeat are indexed by cut tokens"
				}
			default:
				why = bounds(float64(population), float64(l.Values), float64(x.Bits), float64(sum))
			}
			if why != "" && fault == nil {
				fault = fmt.Errorf("%w: field %s, index %s:%s: %s", errLeak, l.Field, l.Kind, l.Normalizer, why)
			}
			all = append(all, l)
		}
	}
	return all, fault
}

// values estimates how many different values an index has.
func (c *codec) values(p *fieldPlan, x *indexPlan, population int) int {
	most := population
	if p.Distinct > 0 && len(x.of) == 0 {
		most = min(most, p.Distinct)
	}
	if len(x.of) > 0 { // at most every combination
		all := 1.0
		for _, at := range x.of {
			if d := c.plans[at].Distinct; d > 0 {
				all *= float64(d)
			} else {
				all *= float64(population)
			}
		}
		most = int(min(all, float64(population)))
	}
	if x.shape == prefixes || x.shape == suffixes { // as digits: the least that n characters can be
		most = min(most, int(math.Pow(10, float64(min(x.n, 9)))))
	}
	return most
}

// bounds returns which bound a cut index breaks.
func bounds(records, values, bits, sum float64) string {
	share := records / math.Pow(2, sum)
	tokens := math.Pow(2, bits)
	switch {
	case share < 2:
		return fmt.Sprintf("its field's indexes have %.0f bits together, which leaves %.2f records to a token; at least 2 are wanted", sum, share)
	case share >= math.Sqrt(records):
		return fmt.Sprintf("its field's indexes have %.0f bits together, which leaves %.0f records to a token; a search opens them all", sum, share)
	case tokens <= math.Sqrt(values):
		return fmt.Sprintf("%.0f bits are too few for %.0f values", bits, values)
	case tokens >= values/2:
		return fmt.Sprintf("%.0f bits are too many for %.0f values", bits, values)
	}
	return ""
}
