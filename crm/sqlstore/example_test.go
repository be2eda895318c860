package sqlstore_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/crmtest"
	"github.com/crmguard/crmguard/crm/sqlstore"
	"github.com/crmguard/crmguard/internal/dialect"
)

func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "sqlstore")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	w, r, err := dialect.OpenSQLite(ctx, filepath.Join(dir, "crm.db"))
	if err != nil {
		panic(err)
	}
	defer w.Close()
	defer r.Close()
	store, err := sqlstore.Open(ctx, w, r, dialect.SQLite)
	if err != nil {
		panic(err)
	}
	if err := store.Declare(ctx, crmtest.Schema()); err != nil {
		panic(err)
	}
	var b crm.Batch
	for i := range 3 {
		b.Writes = append(b.Writes, crm.Write{Row: crmtest.Row("default", i)})
	}
	seq, err := store.Apply(ctx, b)
	fmt.Println(seq, err)
	n, err := store.Count(ctx, crm.Query{Tenant: "default", Type: "thing", Where: crm.Everything{}})
	fmt.Println(n, err)
	_, err = store.Apply(ctx, b)
	fmt.Println(err)
	// Output:
	// 1 <nil>
	// 3 <nil>
	// crm: write 0: crm: changed in the meantime
}
