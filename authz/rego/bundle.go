package rego

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing/fstest"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
)

const (
	bundleKey = "policy"
	bundleAlg = "ES256"
)

// SignBundle writes a policy as a signed bundle of OPA (bundle.tar.gz with .signatures.json), after it was loaded as New would.
// privatePEM is an ECDSA key on P-256. What it writes, the tool opa reads, and the other way round.
func SignBundle(ctx context.Context, w io.Writer, files fs.FS, privatePEM []byte) error {
	if files == nil {
		files = Embedded()
	}
	src, err := readSource(files)
	if err != nil {
		return err
	}
	if _, err := load(ctx, files, 1); err != nil {
		return err
	}
	b := bundle.Bundle{Manifest: bundle.Manifest{Revision: src.revision}, Data: src.data}
	b.Manifest.Init()
	b.Manifest.SetRegoVersion(ast.RegoV1)
	for _, modules := range []map[string]*ast.Module{src.modules, src.tests} {
		for name, m := range modules {
			text, err := fs.ReadFile(files, name)
			if err != nil {
				return refuse("%v", err)
			}
			b.Modules = append(b.Modules, bundle.ModuleFile{URL: "/" + name, Path: "/" + name, RelativePath: "/" + name, Raw: text, Parsed: m})
		}
	}
	if err := b.GenerateSignature(bundle.NewSigningConfig(string(privatePEM), bundleAlg, ""), bundleKey, false); err != nil {
		return errors.New("authz/rego: the bundle cannot be signed: the key is no ECDSA key on P-256")
	}
	if err := bundle.NewWriter(w).DisableFormat(true).Write(b); err != nil {
		return errors.New("authz/rego: the bundle cannot be written")
	}
	return nil
}

// OpenBundle reads a signed bundle, for New or Load. Its signature must be by the key whose public half is publicPEM, and cover
// every file. Errors are *LoadError.
func OpenBundle(r io.Reader, publicPEM []byte) (fs.FS, error) {
	raw, err := io.ReadAll(io.LimitReader(r, mostBytes+1))
	if err != nil {
		return nil, refuse("the bundle cannot be read")
	}
	if len(raw) > mostBytes {
		return nil, refuse("larger than %d bytes", mostBytes)
	}
	// Everything is unpacked once to see how large it is, and that it ends where it should.
	zip, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, refuse("bundle: no gzip: %v", err)
	}
	n, err := io.Copy(io.Discard, io.LimitReader(zip, mostBytes+1))
	switch {
	case err != nil:
		return nil, refuse("bundle: %v", err)
	case n > mostBytes:
		return nil, refuse("larger than %d bytes", mostBytes)
	}
	key := &bundle.KeyConfig{Key: string(publicPEM), Algorithm: bundleAlg}
	b, err := bundle.NewCustomReader(bundle.NewTarballLoaderWithBaseURL(bytes.NewReader(raw), "")).
		WithBundleVerificationConfig(bundle.NewVerificationConfig(map[string]*bundle.KeyConfig{bundleKey: key}, bundleKey, "", nil)).
		WithSizeLimitBytes(mostBytes).
		WithRegoVersion(ast.RegoV1).
		Read()
	if err != nil {
		return nil, refuse("bundle: %v", err)
	}
	if b.Signatures.Signatures == nil {
		return nil, refuse("bundle: it is not signed")
	}
	data, err := json.Marshal(b.Data)
	if err != nil {
		return nil, refuse("bundle: %v", err)
	}
	files := fstest.MapFS{"data.json": &fstest.MapFile{Data: data}}
	for _, m := range b.Modules {
		files[strings.TrimPrefix(m.Path, "/")] = &fstest.MapFile{Data: m.Raw}
	}
	return files, nil
}
