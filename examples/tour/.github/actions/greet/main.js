const { appendFileSync } = require("node:fs");

const greeting = `${process.env.GREETING} ${process.env["INPUT_WHO-TO-GREET"]}`;
console.log(greeting);
appendFileSync(process.env.GITHUB_OUTPUT, `greeting=${greeting}\n`);
appendFileSync(process.env.GITHUB_STATE, `greeted=${greeting}\n`);
