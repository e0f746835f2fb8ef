//! A workflow is started from its repository's page: its inputs are fields of their types, its secrets are not to be read.

use longshore_tests::harness::{browser::Browser, pool::Dev, world::World};

use super::{PATH, SIGNED_IN};

const WORKFLOW: &str = r#"name: Deploy
on:
  workflow_dispatch:
    inputs:
      to: { type: choice, required: true, options: [staging, production] }
      replicas: { type: number, default: 2 }
      dry: { type: boolean, default: true }
jobs:
  deploy:
    runs-on: ubuntu-latest
    steps:
      - name: Deploy
        run: |
          echo "to ${{ inputs.to }}, ${{ inputs.replicas }} replicas, dry ${{ inputs.dry }}, token of ${#TOKEN}"
          test "${{ inputs.to }}" = staging
        env:
          TOKEN: ${{ secrets.TOKEN }}
"#;
/// Nobody starts it by hand, and it has a mistake.
const OTHER: &str =
    "name: Other\non: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo ${{ gihub.ref }}\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_required_choice_that_is_not_chosen_is_refused_and_inputs_are_fields_of_their_types() {
    let data = tempfile::tempdir().unwrap();
    let dev = Dev::start(&data.path().join("data"), &["--sandbox", "host"]).unwrap();
    let world = World::new(&dev.relay, &[(PATH, WORKFLOW), (".github/workflows/other.yml", OTHER)]).await.unwrap();
    let browser = Browser::start().await.unwrap();
    let signer = browser.sign_with(world.owner.clone()).await.unwrap();
    let until = async |expression: &str| {
        let found = browser.until(expression).await;
        let found = found.unwrap_or_else(|error| panic!("{error:#}\n{}", dev.process.text()));
        found.as_str().unwrap_or_default().to_owned()
    };
    // The page exists once something ran.
    let mut press = world.press(dev.pubkey, PATH);
    press.more = vec![["input", "to", "production"].map(str::to_owned).to_vec()];
    let (run, job) = world.send(&press).await.unwrap();
    world.listener.end(&run, &job, std::time::Duration::from_secs(180)).await.unwrap();
    browser.client.goto(&format!("{}/repositories/{}", dev.http, world.address())).await.unwrap();
    browser.sign_in().await.unwrap();
    until(SIGNED_IN).await;
    assert_eq!(browser.audit().await.unwrap(), Vec::<String>::new());
    let row = until("document.querySelector('.workflow .row')?.innerText").await;
    assert!(row.contains("Deploy") && row.contains("#1"), "{row}");
    until("document.querySelector('.workflow .history .failure rect') && 'a red bar'").await;
    // A finding stands at its line, and what nobody starts by hand has no button.
    let found =
        until("document.querySelector('.workflow .log .row.error, .workflow .log .row.warning')?.textContent").await;
    assert!(found.contains("gihub"), "{found}");
    assert_eq!(until("String(document.querySelectorAll('.workflow [data-runs] button').length)").await, "1");

    browser.press("Run workflow").await.unwrap();
    let kinds = "(() => { const form = document.querySelector('dialog[open] form'); return form && ['input.to', 'input.replicas', 'input.dry']
        .map((name) => form.elements[name].type + ' ' + (form.elements[name].required ? 'required' : form.elements[name].value)).join(); })()";
    assert_eq!(until(kinds).await, "select-one required,number 2,checkbox on");
    assert_eq!(browser.audit().await.unwrap(), Vec::<String>::new());
    let here = browser.client.current_url().await.unwrap();
    browser.press("Start run").await.unwrap();
    let refused = "document.querySelector('dialog[open] form') && !document.querySelector('dialog form').checkValidity() && 'refused'";
    assert_eq!(until(refused).await, "refused");
    assert_eq!(browser.client.current_url().await.unwrap(), here);

    browser.press("Add a secret").await.unwrap();
    until("(() => { const form = document.querySelector('dialog form'); form.elements['input.to'].value = 'staging'; form.elements['input.replicas'].value = '3';
        const [name, value] = form.querySelectorAll('.secret input'); name.value = 'TOKEN'; value.value = 'hush'; return value.type === 'password' && 'filled'; })()").await;
    browser.press("Start run").await.unwrap();
    until("location.pathname.startsWith('/runs/') && document.querySelector('#state.success')?.textContent").await;
    browser.click("details.job summary").await.unwrap();
    browser.click("ol.steps li:has(a[href*=Deploy]) a").await.unwrap();
    until("[...document.querySelectorAll('#log .text')].find((one) => one.textContent === 'to staging, 3 replicas, dry true, token of 4')?.textContent").await;
    signer.abort();
}
