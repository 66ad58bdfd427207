"""Fills a moto server: moto_setup.py URL FOLDER. Prints an access key id and its secret; afterwards every request must
be signed by them (the server was started with INITIAL_NO_AUTH_ACTION_COUNT=8: the requests below).

The keys are plain, and lists are of the whole bucket: moto refuses its own SDK's signature where a key or a query has
escaped characters. tests/fakes/s3_server.cc does not."""

import json
import sys

import boto3

url, folder = sys.argv[1:]
common = dict(endpoint_url=url, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
s3, iam = boto3.client("s3", **common), boto3.client("iam", **common)
s3.create_bucket(Bucket="cars")
for key, name in [("2024/hello.car", "boxo/hello.car"), ("2024/deep/again.car", "boxo/hello.car"),
                  ("2024/readme.txt", "README.md"), ("2023/other.car", "boxo/hello.car")]:
    s3.put_object(Bucket="cars", Key=key, Body=open(f"{folder}/{name}", "rb").read())
iam.create_user(UserName="lab")
policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
iam.put_user_policy(UserName="lab", PolicyName="all", PolicyDocument=json.dumps(policy))
key = iam.create_access_key(UserName="lab")["AccessKey"]
print(key["AccessKeyId"], key["SecretAccessKey"])
