package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed static
var static embed.FS

// asset is one static file.
type asset struct {
	path string // as served
	kind string // media type
	data []byte
}

// assets returns the static files by their names in the folder.
func assets() (map[string]asset, error) {
	entries, err := static.ReadDir("static")
	if err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	files := map[string]asset{}
	for _, e := range entries {
		b, err := static.ReadFile("static/" + e.Name())
		if err != nil {
			return nil, fmt.Errorf("page: %w", err)
		}
		sum := sha256.Sum256(b)
		ext := path.Ext(e.Name())
		kind := map[string]string{".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}[ext]
		if kind == "" {
			kind = mime.TypeByExtension(ext)
		}
		files[e.Name()] = asset{
			path: "/static/" + strings.TrimSuffix(e.Name(), ext) + "." + hex.EncodeToString(sum[:6]) + ext,
			kind: kind, data: b,
		}
	}
	return files, nil
}

// Static serves style, script and icon under /static/, by names that hold a hash of their content. They
// hold nothing of anybody, need no sign-in, and may be cached for ever.
func Static() http.Handler {
	files, err := assets()
	byPath := map[string]asset{}
	for _, f := range files {
		byPath[f.path] = f
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, ok := byPath[r.URL.Path]
		if err != nil || !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", f.kind)
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.data))
	})
}
