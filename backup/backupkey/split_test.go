package backupkey_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/backuptest"
)

func TestSplit(t *testing.T) {
	key := backuptest.Key(t)
	for _, c := range [][2]int{{2, 2}, {2, 3}, {3, 5}, {5, 5}, {2, 255}} {
		shares, err := key.Split(c[0], c[1])
		if err != nil || len(shares) != c[1] {
			t.Fatal(err)
		}
		// Every choice of as many as are needed, in a small set; in the large one, two ends.
		for mask := range min(1<<c[1], 32) {
			var some []string
			for i := range min(c[1], 5) {
				if mask>>i&1 == 1 {
					some = append(some, " "+shares[len(shares)-1-i]+"\n")
				}
			}
			got, err := backupkey.Join(some)
			if len(some) >= c[0] {
				if err != nil || got.Public().String() != key.Public().String() {
					t.Fatalf("%d of %v: %v", len(some), c, err)
				}
			} else if !errors.Is(err, backupkey.ErrKey) {
				t.Fatalf("%d of %v: %v", len(some), c, err)
			}
		}
	}
	for _, c := range [][2]int{{1, 3}, {0, 0}, {4, 3}, {2, 256}, {-1, 2}} {
		if _, err := key.Split(c[0], c[1]); err == nil {
			t.Errorf("%v is accepted", c)
		}
	}
}

// A share that is mistyped, cut, foreign or twice is said to be so, by its place, and never gives another key.
func TestJoinRefuses(t *testing.T) {
	key := backuptest.Key(t)
	shares, err := key.Split(2, 3)
	if err != nil {
		t.Fatal(err)
	}
	other, err := key.Split(2, 3)
	if err != nil {
		t.Fatal(err)
	}
	prefix := "crmguard-backup-share-1:"
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(shares[1], prefix))
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		raw[i] ^= 1
		if k, err := backupkey.Join([]string{shares[0], prefix + base64.StdEncoding.EncodeToString(raw)}); k != nil || err == nil || !strings.Contains(err.Error(), "share 2") {
			t.Fatalf("flip byte %d: %v", i, err)
		}
		raw[i] ^= 1
		if _, err := backupkey.Join([]string{prefix + base64.StdEncoding.EncodeToString(raw[:i]), shares[0]}); err == nil || !strings.Contains(err.Error(), "share 1") {
			t.Fatalf("cut to %d: %v", i, err)
		}
	}
	for name, c := range map[string]struct {
		shares []string
		want   string
	}{
		"none":         {nil, "too few"},
		"one twice":    {[]string{shares[0], shares[0]}, "too few"},
		"another set":  {[]string{shares[0], other[1]}, "share 2 is of another set"},
		"another kind": {[]string{shares[0], key.Public().String()}, "share 2"},
		"no text":      {[]string{""}, "share 1"},
	} {
		if _, err := backupkey.Join(c.shares); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func ExamplePrivate_Split() {
	key, err := backupkey.Generate()
	if err != nil {
		fmt.Println(err)
		return
	}
	shares, err := key.Split(3, 5) // for five persons, any three of whom can restore
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = backupkey.Join(shares[:2])
	fmt.Println(err)
	again, err := backupkey.Join(shares[2:])
	fmt.Println(again.Public().ID() == key.Public().ID(), err)
	// Output:
	// backupkey: the key does not fit: too few shares
	// true <nil>
}
