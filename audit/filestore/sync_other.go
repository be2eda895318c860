//go:build !linux

package filestore

import "os"

// syncData makes data and size of f durable.
func syncData(f *os.File) error { return f.Sync() }
