package encrypttest_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/crmguard/crmguard/encrypt/encrypttest"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
)

var ctx = context.Background()

func faultKEK(t testing.TB) *encrypttest.FaultKEK {
	t.Helper()
	k, err := localkek.Open(filepath.Join(t.TempDir(), "kek"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return encrypttest.NewFaultKEK(k)
}

// Without a fault it is a KEK like any other.
func TestFaultKEK(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	encrypttest.TestKEK(t, func(t testing.TB) keys.KEK {
		k, err := localkek.Open(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		return encrypttest.NewFaultKEK(k)
	})
}

// operations are the four calls of a KEK.
func operations(k *encrypttest.FaultKEK, wrapped []byte) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"wrap":   func(ctx context.Context) error { _, err := k.Wrap(ctx, []byte("key"), nil); return err },
		"unwrap": func(ctx context.Context) error { _, err := k.Unwrap(ctx, wrapped, nil); return err },
		"rotate": k.Rotate,
		"trim":   func(ctx context.Context) error { return k.Trim(ctx, [][]byte{wrapped}) },
	}
}

func TestFaults(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault encrypttest.Fault
		want  error
	}{
		{"away", encrypttest.Away, keys.ErrKMSUnavailable},
		{"sealed", encrypttest.Sealed, keys.ErrKMSUnavailable},
		{"refused", encrypttest.Refused, keys.ErrAuth},
		{"hanging", encrypttest.Hanging, context.DeadlineExceeded},
	} {
		k := faultKEK(t)
		w, err := k.Wrap(ctx, []byte("key"), nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, call := range operations(k, w) {
			soon, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
			if tc.fault != encrypttest.Hanging {
				soon = ctx
			}
			k.Set(tc.fault)
			if err := call(soon); !errors.Is(err, tc.want) {
				t.Errorf("%s, %s: got %v, want %v", tc.name, name, err, tc.want)
			}
			k.Set(encrypttest.None)
			if err := call(ctx); err != nil {
				t.Errorf("after %s, %s: %v", tc.name, name, err)
			}
			cancel()
		}
		if n := k.Calls(); n != 9 {
			t.Errorf("%s: %d calls counted, want 9", tc.name, n)
		}
	}
}

func TestWrongKey(t *testing.T) {
	k := faultKEK(t)
	w, err := k.Wrap(ctx, []byte("key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	k.Set(encrypttest.WrongKey)
	got, err := k.Unwrap(ctx, w, nil)
	if err != nil || len(got) != 3 || bytes.Equal(got, []byte("key")) {
		t.Fatalf("got %q, %v", got, err)
	}
	if _, err := k.Wrap(ctx, []byte("key"), nil); err != nil {
		t.Fatal(err)
	}
}

func TestSlow(t *testing.T) {
	k := faultKEK(t)
	k.Slow(20 * time.Millisecond)
	start := time.Now()
	if _, err := k.Wrap(ctx, []byte("key"), nil); err != nil || time.Since(start) < 20*time.Millisecond {
		t.Fatalf("after %v: %v", time.Since(start), err)
	}
	k.Slow(time.Hour)
	soon, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if _, err := k.Wrap(soon, []byte("key"), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want context.DeadlineExceeded", err)
	}
	k.Slow(0)
	if _, err := k.Wrap(ctx, []byte("key"), nil); err != nil {
		t.Fatal(err)
	}
}

func TestFlap(t *testing.T) {
	k := faultKEK(t)
	for round := range 2 { // it counts from Flap on
		if round > 0 {
			k.Wrap(ctx, nil, nil)
		}
		k.Flap(3)
		for i := 1; i <= 9; i++ {
			_, err := k.Wrap(ctx, []byte("key"), nil)
			if failed := errors.Is(err, keys.ErrKMSUnavailable); failed != (i%3 == 0) {
				t.Fatalf("call %d: %v", i, err)
			}
		}
	}
	k.Flap(1)
	if _, err := k.Wrap(ctx, []byte("key"), nil); !errors.Is(err, keys.ErrKMSUnavailable) {
		t.Fatalf("got %v, want ErrKMSUnavailable", err)
	}
	k.Flap(0)
	if _, err := k.Wrap(ctx, []byte("key"), nil); err != nil {
		t.Fatal(err)
	}
}

// plain is a KEK that neither rotates nor trims.
type plain struct{ keys.KEK }

func TestNeitherRotatorNorTrimmer(t *testing.T) {
	k := encrypttest.NewFaultKEK(plain{faultKEK(t)})
	if err := k.Rotate(ctx); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("rotate: got %v, want ErrUnsupported", err)
	}
	if err := k.Trim(ctx, nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("trim: got %v, want ErrUnsupported", err)
	}
	if k.ID() == "" {
		t.Error("no id")
	}
}
