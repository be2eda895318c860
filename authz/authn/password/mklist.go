//go:build ignore

// Command mklist writes common.bin from JSON arrays of passwords. NOTICE says where they are from.
//
//	npm pack @zxcvbn-ts/language-common@4.1.3 && tar xzf zxcvbn-ts-language-common-4.1.3.tgz
//	go run mklist.go package/src/passwords.json
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

func main() {
	set := map[string]bool{}
	for _, name := range os.Args[1:] {
		b, err := os.ReadFile(name)
		if err != nil {
			log.Fatal(err)
		}
		var words []string
		if err := json.Unmarshal(b, &words); err != nil {
			log.Fatal(err)
		}
		for _, w := range words {
			w = strings.ToLower(norm.NFKC.String(strings.ToLower(w))) // as fold does
			if utf8.RuneCountInString(w) >= 4 {                       // shorter ones are patterns
				sum := sha256.Sum256([]byte(w))
				set[string(sum[:5])] = true
			}
		}
	}
	all := slices.Sorted(maps.Keys(set))
	counts := make([]byte, 1<<16)
	var tails bytes.Buffer
	for _, s := range all {
		bucket := binary.BigEndian.Uint16([]byte(s))
		if counts[bucket]++; counts[bucket] == 0 {
			log.Fatal("a bucket holds 255 at most")
		}
		tails.WriteString(s[2:])
	}
	out := []byte("crmguard passwords 1\n")
	out = binary.BigEndian.AppendUint32(out, uint32(len(all)))
	out = append(append(out, counts...), tails.Bytes()...)
	if err := os.WriteFile("common.bin", out, 0o644); err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(all), "entries,", len(out), "bytes")
}
