package encrypt_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
	"github.com/crmguard/crmguard/encrypt/normalize"
)

// Guest is a record of your own.
type Guest struct {
	Name  string `protect:"personal,mask=name"`
	Phone string `protect:"personal,mask=phone,index=exact:phone"`
	Table int    `protect:"internal"`
}

func Example() {
	ctx := context.Background()
	dir, _ := os.MkdirTemp("", "encrypt")
	defer os.RemoveAll(dir)
	kek, _ := localkek.Open(filepath.Join(dir, "kek"), nil)
	keeper, _ := encrypt.NewKeeper(kek, keys.NewMemory(), &encrypt.Options{Grace: -1})
	guests, _ := encrypt.NewCodec[*Guest](&encrypt.CodecOptions{
		Normalizers: normalize.Normalizers("CN"), Masks: normalize.Masks(),
	})

	rec := encrypt.Record{Tenant: "default", ID: [16]byte{1}, Person: [16]byte{2}}
	sealed, _ := guests.Seal(ctx, keeper, rec, &Guest{Name: "张伟", Phone: "138 0013 8000", Table: 4}, nil)

	query, _ := guests.Query(ctx, keeper, "default", "phone", "exact", "+86 13800138000")
	fmt.Println("found by phone:", query.Groups[0][0] == sealed.Fields[1].Tokens[0].Value)

	var guest Guest
	guests.Open(ctx, keeper, rec, sealed.Fields, &guest, "phone") // the name is never decrypted
	guests.Conceal(&guest, "phone", encrypt.StateMasked)
	fmt.Printf("%q %q\n", guest.Phone, guest.Name)

	keeper.Erase(ctx, "default", rec.Person, nil)
	states, err := guests.Open(ctx, keeper, rec, sealed.Fields, &guest, "phone")
	fmt.Println(guests.State(states, "phone"), err)
	// Output:
	// found by phone: true
	// "138****8000" ""
	// erased <nil>
}
