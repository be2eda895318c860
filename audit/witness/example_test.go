package witness_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/memstore"
	"github.com/crmguard/crmguard/audit/witness"
)

// exampleHead returns the checkpoint of a log with one event, and its key.
func exampleHead() (checkpoint []byte, key string) {
	signer, err := audit.NewEd25519Signer("crm.example.com/log", ed25519.NewKeyFromSeed(make([]byte, 32)))
	if err != nil {
		log.Fatal(err)
	}
	l, err := audit.Open(context.Background(), memstore.New(), signer, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	head, err := l.Checkpoint(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	return head.Note, signer.VerifierKey()
}

// exampleWitness serves a witness of the log with the given key.
func exampleWitness(name, logKey string) (url string, key witness.Key, stop func()) {
	seed := make([]byte, 32) // a program has random keys
	copy(seed, name)
	cosigner, err := witness.NewCosigner(name, ed25519.NewKeyFromSeed(seed))
	if err != nil {
		log.Fatal(err)
	}
	server, err := witness.NewServer(cosigner, []string{logKey}, witness.NewMemStore(), &witness.ServerOptions{
		Clock: func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }})
	if err != nil {
		log.Fatal(err)
	}
	s := httptest.NewServer(server)
	return s.URL, cosigner.Key(), s.Close
}

func Example() {
	checkpoint, logKey := exampleHead()
	url1, key1, stop := exampleWitness("witness.example.org/1", logKey)
	defer stop()
	url2, key2, stop := exampleWitness("witness.example.net/2", logKey)
	defer stop()
	url3, key3, stop := exampleWitness("witness.example.com/3", logKey)
	stop() // one of three is down
	policy, err := witness.ParsePolicy([]byte(
		"log " + logKey + "\n" +
			"witness org " + key1.String() + " " + url1 + "\n" +
			"witness net " + key2.String() + " " + url2 + "\n" +
			"witness com " + key3.String() + " " + url3 + "\n" +
			"group two 2 org net com\n" +
			"quorum two\n"))
	if err != nil {
		log.Fatal(err)
	}
	// The prover is asked once a witness has signed an earlier checkpoint.
	prove := func(_ context.Context, old, size uint64) ([]tlog.Hash, error) {
		return nil, errors.New("not needed here")
	}
	client, err := witness.NewClient(policy, prove, nil)
	if err != nil {
		log.Fatal(err)
	}
	result, err := client.Cosign(context.Background(), checkpoint)
	fmt.Println("quorum:", result.Quorum, err)

	signed, err := policy.Check(result.Note)
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range signed {
		fmt.Println(s.Key.Name(), s.Time.Format(time.RFC3339))
	}
	// Output:
	// quorum: true <nil>
	// witness.example.org/1 2026-01-02T03:04:05Z
	// witness.example.net/2 2026-01-02T03:04:05Z
}

func ExampleClient_Cosign() {
	checkpoint, logKey := exampleHead()
	url, key, stop := exampleWitness("witness.example.org/1", logKey)
	stop() // it is down
	policy, err := witness.ParsePolicy([]byte("witness w " + key.String() + " " + url + "\nquorum w\n"))
	if err != nil {
		log.Fatal(err)
	}
	prove := witness.TreeProver(tlog.HashReaderFunc(func([]int64) ([]tlog.Hash, error) { return nil, errors.New("no hashes") }))
	for _, open := range []bool{false, true} {
		client, err := witness.NewClient(policy, prove, &witness.Options{FailOpen: open, Timeout: 100 * time.Millisecond})
		if err != nil {
			log.Fatal(err)
		}
		result, err := client.Cosign(context.Background(), checkpoint)
		fmt.Println(open, result.Quorum, errors.Is(err, witness.ErrQuorum))
	}
	// Output:
	// false false true
	// true false false
}

func ExampleCosignatures() {
	checkpoint, logKey := exampleHead()
	url, key, stop := exampleWitness("witness.example.org/1", logKey)
	defer stop()
	policy, err := witness.ParsePolicy([]byte("witness w " + key.String() + " " + url + "\nquorum w\n"))
	if err != nil {
		log.Fatal(err)
	}
	client, err := witness.NewClient(policy, func(context.Context, uint64, uint64) ([]tlog.Hash, error) { return nil, nil }, nil)
	if err != nil {
		log.Fatal(err)
	}
	result, err := client.Cosign(context.Background(), checkpoint)
	if err != nil {
		log.Fatal(err)
	}
	for _, msg := range [][]byte{checkpoint, result.Note} {
		signed, err := witness.Cosignatures(msg, key)
		fmt.Println(len(signed), err)
	}
	// Output:
	// 0 <nil>
	// 1 <nil>
}

func ExampleOpenFileStore() {
	dir, err := os.MkdirTemp("", "witness")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "state")
	store, err := witness.CreateFileStore(path) // once, by hand
	if err != nil {
		log.Fatal(err)
	}
	store.Close()
	store, err = witness.OpenFileStore(path)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	head := witness.Head{Origin: "crm.example.com/log", Size: 7}
	fmt.Println(store.Swap(context.Background(), 0, head))
	fmt.Println(store.Swap(context.Background(), 0, head))
	// Output:
	// <nil>
	// witness: the stored size is another one
}

func ExamplePins() {
	dir, err := os.MkdirTemp("", "copies")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	bucket, err := witness.NewDirBucket(dir)
	if err != nil {
		log.Fatal(err)
	}
	checkpoint, _ := exampleHead()
	if err := witness.Copy(context.Background(), bucket, checkpoint); err != nil {
		log.Fatal(err)
	}
	pins, err := witness.Pins(context.Background(), bucket, "crm.example.com/log", 10)
	fmt.Println(len(pins), err)
	// Output:
	// 1 <nil>
}
