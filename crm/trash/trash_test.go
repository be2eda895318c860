package trash_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/crmtest"
	"github.com/crmguard/crmguard/crm/trash"
)

var start = crmtest.Start()

func ref(n int) trash.Ref { return trash.Ref{Type: crm.TypeCustomer, ID: crm.UUID{15: byte(n)}} }

func item(n int, parents ...int) trash.Item {
	i := trash.Item{Ref: ref(n)}
	for _, p := range parents {
		i.Parents = append(i.Parents, ref(p))
	}
	return i
}

// gone puts items into the bin by one act, so many days after the start.
func gone(group byte, day int, items ...trash.Item) []trash.Item {
	for i := range items {
		items[i].DeletedAt, items[i].Group = start.AddDate(0, 0, day), crm.UUID{group}
	}
	return items
}

func numbers(refs []trash.Ref) []int {
	var out []int
	for _, r := range refs {
		out = append(out, int(r.ID[15]))
	}
	return out
}

// TestItem14RecycleBin: what is deleted goes and comes back with what belongs to it, and is purged after its days unless it is held.
func TestItem14RecycleBin(t *testing.T) {
	// 1 is a customer, 2 and 3 its contracts, 4 an instalment of 2, 5 a task of both contracts.
	living := []trash.Item{item(1), item(2, 1), item(3, 1), item(4, 2), item(5, 2, 3), item(9)}
	list, err := trash.Delete(ref(1), living)
	if got := numbers(list); err != nil || !slices.Equal(got, []int{4, 5, 2, 3, 1}) {
		t.Errorf("deleted %v, %v", got, err)
	}
	if list, err := trash.Delete(ref(4), living); err != nil || !slices.Equal(numbers(list), []int{4}) {
		t.Errorf("deleted %v, %v", numbers(list), err)
	}
	for what, err := range map[string]error{
		"not there": second(trash.Delete(ref(77), living)), "deleted twice": second(trash.Delete(ref(1), gone(1, 0, item(1)))),
		"restored, but not there": second(trash.Restore(ref(77), living)), "restored, but it lives": second(trash.Restore(ref(1), living)),
	} {
		if !errors.Is(err, crm.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}

	// 4 had been deleted before the customer went with all else.
	binned := append(gone(1, 0, item(4, 2)), gone(2, 5, item(1), item(2, 1), item(3, 1), item(5, 2, 3))...)
	for _, c := range []struct {
		root int
		want []int
	}{
		{1, []int{1, 2, 3, 5}}, // without 4
		{4, []int{1, 2, 4}},    // what it belongs to comes back, the rest does not
		{2, []int{1, 2, 3, 5}}, // all one act
		{5, []int{1, 2, 3, 5}}, //
	} {
		list, err := trash.Restore(ref(c.root), binned)
		got := numbers(list)
		if sorted := slices.Sorted(slices.Values(got)); err != nil || !slices.Equal(sorted, c.want) || !parentsFirst(list, binned) {
			t.Errorf("%d: %v, %v, want %v", c.root, got, err, c.want)
		}
	}
	var missing *trash.GoneError
	if _, err := trash.Restore(ref(4), gone(1, 0, item(4, 2))); !errors.As(err, &missing) || missing.Missing != ref(2) {
		t.Errorf("what it belongs to was purged: %v", err)
	}

	// Purging.
	due := func(days, limit, day int, items []trash.Item) []int {
		return numbers(trash.PurgeDue(items, days, limit, start.AddDate(0, 0, day)))
	}
	for _, c := range []struct {
		name             string
		days, limit, day int
		edit             func([]trash.Item)
		want             []int
	}{
		{"too early", 30, 99, 29, nil, nil},
		{"the first only", 30, 99, 30, nil, []int{4}},
		{"all, from below", 30, 99, 35, nil, []int{4, 5, 2, 3, 1}},
		{"a limit", 30, 2, 35, nil, []int{4, 5}},
		{"never", 0, 99, 999, nil, nil},
		{"nothing at once", 30, 0, 999, nil, nil},
		{"a hold keeps it and what is above", 30, 99, 99, func(l []trash.Item) { l[4].Held = true }, []int{4}},
		{"a hold above keeps it alone", 30, 99, 99, func(l []trash.Item) { l[1].Held = true }, []int{4, 5, 2, 3}},
		{"what lives keeps what is above", 30, 99, 99, func(l []trash.Item) { l[0].DeletedAt = time.Time{} }, []int{5, 3}},
	} {
		l := slices.Clone(binned)
		if c.edit != nil {
			c.edit(l)
		}
		if got := due(c.days, c.limit, c.day, l); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if when, ok := trash.PurgeAt(binned[0], 30); !ok || !when.Equal(start.AddDate(0, 0, 30)) {
		t.Errorf("due at %v, %v", when, ok)
	}
	if _, ok := trash.PurgeAt(living[0], 30); ok {
		t.Error("what lives is due")
	}
	held := binned[0]
	held.Held = true
	if _, ok := trash.PurgeAt(held, 30); ok {
		t.Error("what is held is due")
	}
}

func second[T any](_ T, err error) error { return err }

func parentsFirst(list []trash.Ref, items []trash.Item) bool {
	seen := map[trash.Ref]bool{}
	for _, r := range list {
		for _, i := range items {
			if i.Ref == r {
				for _, p := range i.Parents {
					if !seen[p] {
						return false
					}
				}
			}
		}
		seen[r] = true
	}
	return true
}

// TestProperties: deleting and restoring a record gives back exactly what was taken; whatever is purged leaves nothing that belongs to what
// is gone.
func TestProperties(t *testing.T) {
	random := rand.New(rand.NewPCG(17, 18))
	for range 2000 {
		n := 2 + random.IntN(8)
		var items []trash.Item
		for i := range n {
			x := item(i + 1)
			for p := range i {
				if random.IntN(3) == 0 {
					x.Parents = append(x.Parents, ref(p+1))
				}
			}
			items = append(items, x)
		}
		taken, err := trash.Delete(ref(1), items)
		if err != nil {
			t.Fatal(err)
		}
		for i := range items {
			if slices.Contains(taken, items[i].Ref) {
				items[i].DeletedAt, items[i].Group = start, crm.UUID{1}
			}
		}
		back, err := trash.Restore(ref(1), items)
		if err != nil || !slices.Equal(slices.Sorted(slices.Values(numbers(back))), slices.Sorted(slices.Values(numbers(taken)))) {
			t.Fatalf("took %v, gave back %v, %v", numbers(taken), numbers(back), err)
		}
		for i := range items {
			items[i].Held = random.IntN(6) == 0
			if items[i].DeletedAt.IsZero() && random.IntN(2) == 0 {
				items[i].DeletedAt = start.AddDate(0, 0, random.IntN(60))
			}
		}
		purged := trash.PurgeDue(items, 30, 1+random.IntN(n), start.AddDate(0, 0, random.IntN(90)))
		for _, i := range items {
			if slices.Contains(purged, i.Ref) {
				if i.Held || i.DeletedAt.IsZero() {
					t.Fatalf("purged %v", i)
				}
				continue
			}
			if slices.ContainsFunc(i.Parents, func(p trash.Ref) bool { return slices.Contains(purged, p) }) {
				t.Fatalf("%v stays without what it belongs to", i)
			}
		}
	}
}

func ExampleRestore() {
	items := gone(1, 0, item(1), item(2, 1))
	list, err := trash.Restore(ref(2), items)
	fmt.Println(numbers(list), err)
	_, err = trash.Restore(ref(2), items[1:])
	fmt.Println(err)
	// Output:
	// [1 2] <nil>
	// trash: a customer that it belongs to is gone
}
