package backup

// SortPairs sorts pairs with so few in memory at once, twice, with more added between.
func SortPairs(limit int, first, second [][2]uint64) (once, all [][2]uint64, spilled bool, err error) {
	s := &sorter{limit: limit}
	defer s.close()
	s.add(entry{id: 1})
	s.reset()
	read := func() (out [][2]uint64, err error) {
		err = s.each(func(e entry) error {
			if e.frame != uint32(e.id) {
				return errSpill
			}
			out = append(out, [2]uint64{e.id, e.mac})
			return nil
		})
		return out, err
	}
	for _, p := range first {
		s.add(entry{p[0], p[1], uint32(p[0])})
	}
	if once, err = read(); err != nil {
		return nil, nil, false, err
	}
	for _, p := range second {
		s.add(entry{p[0], p[1], uint32(p[0])})
	}
	all, err = read()
	return once, all, len(s.runs) > 0, err
}
