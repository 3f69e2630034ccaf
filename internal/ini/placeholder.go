package ini

import (
	"strconv"
	"strings"
)

// placeholder is the value of %(key): that of the first option of this name,
// or, if there are blanks in it, the result of a little sum. False leaves it
// as it is.
func (l *loader) placeholder(key string) (string, bool, error) {
	if !strings.Contains(key, " ") {
		value, ok := l.lookup(key)
		return value, ok, nil
	}
	tokens := strings.FieldsFunc(key, isSpace)
	value, has, err := l.calculate(tokens)
	return value, has, err
}

// resolve defines a placeholder with the address of a host: name=host.
func (l *loader) resolve(p Pair) {
	name, host, ok := strings.Cut(p.Value, "=")
	switch {
	case !ok:
		l.fail(p.Pos, "%s: want name=host, not %q", p.Key, p.Value)
		return
	case l.Resolve == nil:
		l.fail(p.Pos, "%s is not done for this file; write the address", p.Key)
		return
	}
	address, err := l.Resolve(host)
	if err != nil {
		l.fail(p.Pos, "%s: no address of %s: %s", p.Key, host, reason(err))
		return
	}
	l.add(Pair{Key: name, Value: address, Pos: p.Pos}, true)
}

// calculate goes from left to right: operands are numbers or options, and
// without an operator between them they are put together as text. What is no
// number counts as 0, and so does the result of a division by 0.
func (l *loader) calculate(tokens []string) (result string, has bool, err error) {
	operator := ""
	for _, token := range tokens {
		switch token {
		case "+", "-", "*", "/":
			operator = token
			continue
		case "++", "--":
			if has {
				step := int64(1)
				if token == "--" {
					step = -1
				}
				result = strconv.FormatInt(atoi(result)+step, 10)
			}
			operator = ""
			continue
		}
		operand := token
		if strings.Trim(token, "0123456789") != "" {
			operand, _ = l.lookup(token)
		}
		if operator != "" {
			result = strconv.FormatInt(arithmetic(atoi(result), operator, atoi(operand)), 10)
		} else if result += operand; len(result) > l.Limits.Value {
			return "", false, errTooLong
		}
		operator, has = "", true
	}
	return result, has, nil
}

func arithmetic(a int64, operator string, b int64) int64 {
	switch operator {
	case "+":
		return a + b
	case "-":
		return a - b
	case "*":
		return a * b
	}
	if b == 0 {
		return 0
	}
	return a / b
}
