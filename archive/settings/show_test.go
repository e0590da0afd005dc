package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/fastrewind/fastrewind/archive/location"
	"github.com/fastrewind/fastrewind/internal/fault"
)

func adviceOf(err error) string {
	var f *fault.Error
	if errors.As(err, &f) {
		return f.Advice
	}
	return ""
}

// show prints an archive with its secrets, which are those of tests.
func show(a location.Archive) string {
	data, err := json.Marshal(a)
	if err != nil {
		return err.Error()
	}
	s := fmt.Sprintf("%s %s %s %s", data, a.Keys.Sodium.Reveal(), a.Keys.PGP.Reveal(), a.Keys.PgBackRestPass.Reveal())
	if a.S3 != nil {
		s += fmt.Sprintf(" %s %s %s", a.S3.SecretKey.Reveal(), a.S3.SessionToken.Reveal(), a.S3.SSECKey.Reveal())
	}
	return s
}

// TestSecretsAreNotPrinted: no struct of settings shows what is secret in it, however it is printed.
func TestSecretsAreNotPrinted(t *testing.T) {
	const secret = "TOPSECRET"
	a := location.Archive{
		Origin: "x", S3: &location.S3{Bucket: "b", Headers: map[string]string{"x": secret}}, Keys: location.Keys{},
	}
	filled := 0
	var fill func(v reflect.Value)
	fill = func(v reflect.Value) {
		for i := range v.NumField() {
			switch f := v.Field(i); {
			case f.Type() == reflect.TypeFor[location.Secret]():
				f.SetString(secret)
				filled++
			case f.Kind() == reflect.Struct:
				fill(f)
			case f.Kind() == reflect.Pointer:
				fill(f.Elem())
			}
		}
	}
	fill(reflect.ValueOf(&a).Elem())
	if filled < 6 {
		t.Fatalf("%d secrets", filled)
	}
	set := map[string]location.Secret{"AWS_SECRET_ACCESS_KEY": secret}
	env := world{}.env("AWS_SECRET_ACCESS_KEY=TOPSECRET aws s3 cp s3://b/%f %p")
	for _, v := range []any{
		a, &a, *a.S3, a.S3, a.Keys, &a.Keys, a.Keys.PGP, Result{Archives: []location.Archive{a}}, env, &env,
		vars{set: set}, &vars{set: set}, walgSettings{vars: vars{set: set}, file: set}, setting{value: secret}, ini{"x": {"y": {value: secret}}},
		pgbr{vars: vars{set: set}, opts: map[string]string{"x": secret}}, simple{args: []word{{text: secret, known: true}}}, word{text: secret},
		flags{values: map[string]string{"x": secret}, operands: []word{{text: secret}}},
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%T", "%10v"} {
			got := fmt.Sprintf(verb, v)
			if strings.Contains(got, secret) || strings.Contains(strings.ToLower(got), fmt.Sprintf("%x", secret)) {
				t.Errorf("%s of %T: %s", verb, v, got)
			}
		}
		if data, err := json.Marshal(v); err == nil && strings.Contains(string(data), secret) {
			t.Errorf("%T in JSON: %s", v, data)
		}
	}
	if d := a.Describe(); strings.Contains(d, secret) {
		t.Error(d)
	}
}
