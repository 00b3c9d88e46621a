# A picture of a handwritten 7, as JSON; the answer has ten scores, one a digit.
curl --silent --fail-with-body --json @digit-7.json "$MODELET_SERVER/v2/models/mnist/infer" |
  python3 -c 'import json, sys; s = json.load(sys.stdin)["outputs"][0]["data"]; print(s.index(max(s)))'
