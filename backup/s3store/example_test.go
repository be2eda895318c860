package s3store_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/crmguard/crmguard/backup/s3store"
)

// Credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile.
func ExampleOpen() {
	ctx := context.Background()
	b, err := s3store.Open(ctx, "s3://backups?endpoint=https://s3.example.com&use_path_style=true&prefix=crm")
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	after, cause, err := b.Linger(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("what is deleted can be read for", after, cause)
}

func ExampleBucket_Lock() {
	ctx := context.Background()
	b, err := s3store.New(ctx, "backups", &s3store.Options{Region: "eu-central-1"})
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	if err := b.Put(ctx, "segments/a", []byte("sealed")); err != nil {
		log.Fatal(err)
	}
	if err := b.Lock(ctx, "segments/a", time.Now().AddDate(0, 1, 0)); err != nil {
		log.Fatal(err)
	}
}

func ExampleOpen_credentials() {
	_, err := s3store.Open(context.Background(), "s3://key:secret@backups")
	fmt.Println(err)
	// Output: s3store: a bucket is s3://BUCKET?region=R&endpoint=URL&use_path_style=true&prefix=WORDS
}
