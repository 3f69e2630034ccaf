package ini

import (
	"errors"
	"reflect"
	"testing"
)

// Who only wants to look at a file runs and reads nothing for a value, sees
// what conditions leave out, and sees a file that is wrong as far as it goes.
func TestLoadToLook(t *testing.T) {
	const text = "[uwsgi]\na = @(secret)\nb = x@(exec://touch pwned)y\nc = %(a)\nif-exists = none\nd = @(e)%(_)\nendif =\nif-env = NONE\ninclude = gone.ini\nendif =\ninclude = gone.ini\n"
	var skipped []Pair
	f, err := Load("a.ini", Options{
		Literal: true,
		Skipped: func(p Pair) { skipped = append(skipped, p) },
		Exec:    func(command string) ([]byte, error) { t.Errorf("%s is run", command); return nil, nil },
		ReadFile: func(name string) ([]byte, error) {
			if name == "a.ini" {
				return []byte(text), nil
			}
			if name != "gone.ini" {
				t.Errorf("%s is read", name)
			}
			return nil, errors.New("gone")
		},
		LookupEnv: func(string) (string, bool) { return "", false },
		Readable:  func(string) bool { return false },
	})
	if err == nil || err.Error() != "a.ini:11: cannot read gone.ini: gone" {
		t.Errorf("the error is %v", err)
	}
	values := map[string]string{}
	for _, p := range f.Pairs {
		values[p.Key] = p.Value
	}
	if values["a"] != "@(secret)" || values["b"] != "x@(exec://touch pwned)y" || values["c"] != "@(secret)" {
		t.Errorf("values are %q", values)
	}
	want := []Pair{
		{Key: "d", Value: "@(e)%(_)", Pos: Pos{"a.ini", 6}},
		{Key: "include", Value: "gone.ini", Pos: Pos{"a.ini", 9}},
	}
	if !reflect.DeepEqual(skipped, want) {
		t.Errorf("left out are %v", skipped)
	}
}
