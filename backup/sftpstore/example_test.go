package sftpstore_test

import (
	"context"
	"fmt"
	"log"

	"github.com/crmguard/crmguard/backup/sftpstore"
)

func ExampleOpen() {
	b, err := sftpstore.Open(context.Background(), "sftp://crm@backup.example.com/srv/backups/crm?key=/etc/crm/backup_key&known_hosts=/etc/crm/known_hosts")
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
}

func ExampleNew() {
	b, err := sftpstore.New(context.Background(), "backup.example.com:22", "crm", "/srv/backups/crm", &sftpstore.Options{
		HostKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHq1Zxv2dfsbIuQu1i0v4uZ1v0yQ4xNp7dM2Yz0uT5cB",
	})
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
}

func ExampleOpen_password() {
	_, err := sftpstore.Open(context.Background(), "sftp://crm:secret@backup.example.com/srv/backups/crm")
	fmt.Println(err)
	// Output: sftpstore: a URL has no password; use a key file or an agent
}
