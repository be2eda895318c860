package encrypt_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
	"github.com/crmguard/crmguard/encrypt/normalize"
	"github.com/crmguard/crmguard/internal/realtest"
)

// Visitor is a record in a table of your own: clear columns, one column for all sealed fields, and an array of
// tokens with an index.
type Visitor struct {
	Name  encrypt.Text `protect:"personal,mask=name,index=ngram:person,leaks=fragments"`
	Phone encrypt.Text `protect:"personal,mask=phone,index=suffix4:digits:12"`
	Seat  int          `protect:"internal"`
}

// addVisitor stores a visitor.
func addVisitor(ctx context.Context, db *pgx.Conn, codec *encrypt.Codec[*Visitor], keeper *encrypt.Keeper, id [16]byte, v *Visitor) error {
	sealed, err := codec.Seal(ctx, keeper, encrypt.Record{Tenant: "default", ID: id, Person: id}, v, nil)
	if err != nil {
		return err
	}
	var tokens []int64
	for _, f := range sealed.Fields {
		for _, t := range f.Tokens {
			tokens = append(tokens, t.Value)
		}
	}
	_, err = db.Exec(ctx, "INSERT INTO visitor (id, seat, sealed, tokens) VALUES ($1, $2, $3, $4)", id, v.Seat, sealed, tokens)
	return err
}

// findVisitors returns those whose phone ends with the four digits.
func findVisitors(ctx context.Context, db *pgx.Conn, codec *encrypt.Codec[*Visitor], keeper *encrypt.Keeper, digits string) ([]Visitor, error) {
	query, err := codec.Query(ctx, keeper, "default", "phone", "suffix4", digits)
	if err != nil {
		return nil, err
	}
	rows, err := db.Query(ctx, "SELECT id, seat, sealed FROM visitor WHERE tokens && $1 ORDER BY seat", query.Groups[0])
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []Visitor
	for rows.Next() {
		var id [16]byte
		var v Visitor
		var sealed encrypt.Sealed
		if err := rows.Scan(&id, &v.Seat, &sealed); err != nil {
			return nil, err
		}
		if _, err := codec.Open(ctx, keeper, encrypt.Record{Tenant: "default", ID: id, Person: id}, sealed.Fields, &v, codec.SealedNames()...); err != nil {
			return nil, err
		}
		if codec.Match(query, &v) { // a token of 12 bits stands for several numbers
			found = append(found, v)
		}
	}
	return found, rows.Err()
}

// With pgx: an encrypt.Sealed goes into a bytea column and comes out of it.
func ExampleSealed_pgx() {
	ctx := context.Background()
	db, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close(ctx)
	kek, _ := localkek.Open("dev.kek", nil)
	keeper, _ := encrypt.NewKeeper(kek, keys.NewMemory(), nil) // encrypt/sqlstore to keep the keys
	codec, _ := encrypt.NewCodec[*Visitor](&encrypt.CodecOptions{Normalizers: normalize.Normalizers("CN"), Masks: normalize.Masks()})

	addVisitor(ctx, db, codec, keeper, [16]byte{1}, &Visitor{
		Name: encrypt.NewText("曾小明"), Phone: encrypt.NewText("138 0013 5678"), Seat: 4,
	})
	found, _ := findVisitors(ctx, db, codec, keeper, "5678")
	fmt.Println(found) // prints *** for name and phone
}

func TestPgx(t *testing.T) {
	server := realtest.Postgres(t)
	db, err := pgx.Connect(ctx, server.DSN)
	require.NoError(t, err)
	defer db.Close(ctx)
	_, err = db.Exec(ctx, `CREATE TABLE visitor (id uuid PRIMARY KEY, seat int NOT NULL, sealed bytea, tokens bigint[] NOT NULL);
		CREATE INDEX visitor_tokens ON visitor USING gin (tokens)`)
	require.NoError(t, err)
	kek, err := localkek.Open(filepath.Join(t.TempDir(), "kek"), nil)
	require.NoError(t, err)
	keeper, err := encrypt.NewKeeper(kek, keys.NewMemory(), nil)
	require.NoError(t, err)
	codec, err := encrypt.NewCodec[*Visitor](codecOptions())
	require.NoError(t, err)
	for i, phone := range []string{"138 0013 5678", "+86 139 0000 5678", "13800130000"} {
		require.NoError(t, addVisitor(ctx, db, codec, keeper, [16]byte{byte(i + 1)}, &Visitor{encrypt.NewText("曾小明"), encrypt.NewText(phone), i}))
	}
	found, err := findVisitors(ctx, db, codec, keeper, "5678")
	require.NoError(t, err)
	require.Len(t, found, 2)
	require.Equal(t, "138 0013 5678", found[0].Phone.Expose())
	require.NotContains(t, fmt.Sprintf("%v %+v %#v", found, found, found), "138")
	// A text in the clear does not reach a column by mistake.
	_, err = db.Exec(ctx, "INSERT INTO visitor (id, seat, sealed, tokens) VALUES ($1, 9, $2, '{}')", [16]byte{9}, encrypt.NewText("secret"))
	require.Error(t, err)
	require.NotContains(t, err.Error(), "secret")
	// NULL is a record without sealed fields; anything else is refused.
	_, err = db.Exec(ctx, "INSERT INTO visitor (id, seat, sealed, tokens) VALUES ($1, 9, NULL, '{}'), ($2, 10, '\\x02', '{}')", [16]byte{9}, [16]byte{10})
	require.NoError(t, err)
	var sealed encrypt.Sealed
	require.NoError(t, db.QueryRow(ctx, "SELECT sealed FROM visitor WHERE seat = 9").Scan(&sealed))
	require.Empty(t, sealed.Fields)
	require.Error(t, db.QueryRow(ctx, "SELECT sealed FROM visitor WHERE seat = 10").Scan(&sealed))
}
