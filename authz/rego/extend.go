package rego

import (
	"encoding/json"
	"io/fs"
	"testing/fstest"
)

// Extend returns a policy with other settings: patch is a JSON merge patch (RFC 7396) of its data.json, such as the grants of a type of
// your own: {"settings": {"grants": {"manager": {"patient": {"read": "team"}}}}}. The modules stay as they are. New and Load check
// the result like any policy, and run its tests. Error: *LoadError.
func Extend(policy fs.FS, patch string) (fs.FS, error) {
	files := fstest.MapFS{}
	err := fs.WalkDir(policy, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(policy, name)
		files[name] = &fstest.MapFile{Data: text}
		return err
	})
	if err != nil {
		return nil, refuse("%v", err)
	}
	old, ok := files["data.json"]
	if !ok {
		return nil, refuse("data.json is missing")
	}
	var data, change any
	if err := json.Unmarshal(old.Data, &data); err != nil {
		return nil, refuse("data.json: %v", err)
	}
	if err := json.Unmarshal([]byte(patch), &change); err != nil {
		return nil, refuse("patch: %v", err)
	}
	if _, object := change.(map[string]any); !object {
		return nil, refuse("patch: no object")
	}
	text, err := json.Marshal(merge(data, change))
	if err != nil {
		return nil, refuse("patch: %v", err)
	}
	files["data.json"] = &fstest.MapFile{Data: text}
	return files, nil
}

// merge is MergePatch of RFC 7396, section 2.
func merge(target, patch any) any {
	change, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	into, ok := target.(map[string]any)
	if !ok {
		into = map[string]any{}
	}
	for name, value := range change {
		if value == nil {
			delete(into, name)
			continue
		}
		into[name] = merge(into[name], value)
	}
	return into
}
