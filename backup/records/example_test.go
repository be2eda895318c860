package records_test

import (
	"context"
	"fmt"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/records"
)

// memory is the smallest store there is: one table, whose rows are by their first value.
type memory map[any][]any

func (m memory) Change(_ context.Context, do func(records.Tx) error) error { return do(m) }

func (m memory) Read(_ context.Context, _ string, columns, _ []string, values []any) ([]any, error) {
	return m[values[0]], nil
}

func (m memory) Insert(_ context.Context, _ string, _ []string, row []any) error {
	m[row[0]] = row
	return nil
}

func (m memory) Update(_ context.Context, _ string, columns []string, row []any, _ []string, values []any) error {
	for i, c := range columns {
		m[values[0]][map[string]int{"id": 0, "city": 1}[c]] = row[i]
	}
	return nil
}

func ExampleMake() {
	ctx := context.Background()
	store := memory{int64(7): {int64(7), "Bonn"}}
	// Repository.Record gives these.
	was := []backup.Record{
		{Table: "customers", Columns: []string{"id", "city"}, Key: []string{"id"}, Row: []any{int64(7), "Berlin"}},
		{Table: "customers", Columns: []string{"id", "city"}, Key: []string{"id"}, Row: []any{int64(8), "Paris"}},
	}
	plan, err := records.Make(ctx, store, was, &records.Options{Conflict: records.Overwrite})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range plan.Steps {
		fmt.Println(s.Table, s.Key, s.Action, len(s.Fields))
	}
	fmt.Println(plan.Apply(ctx, store), store)
	// Output:
	// customers [7] update 1
	// customers [8] create 2
	// <nil> map[7:[7 Berlin] 8:[8 Paris]]
}
